"""What differs between two texts, word by word."""

import re
from difflib import SequenceMatcher

# A word, a sign, or one letter of a script that writes no spaces; with the white space before it.
_LETTER = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
_WORD = re.compile(rf"\s*(?:{_LETTER}|(?:(?!{_LETTER})\w)+|[^\w\s])")
# Comparing takes up to the cube of the length, and answers that repeat themselves are the worst.
COMPARED = 300

Piece = tuple[str, bool]  # a part of a text, and whether the other text lacks it


def compare_words(one: str, other: str, most: int = COMPARED) -> tuple[list[Piece], list[Piece]]:
    """The pieces of both texts, each with whether it differs.

    Args:
      one, other: put together, the pieces of each give its text again.
      most: words of each that are compared; what comes after is one piece that counts as the same,
        so that a long answer is not a long wait.
    """
    (words, rest), (others, other_rest) = _split(one, most), _split(other, most)
    match = SequenceMatcher(
        None, [word.strip() for word in words], [word.strip() for word in others], autojunk=False
    )
    pieces: list[Piece] = []
    other_pieces: list[Piece] = []
    for kind, start, end, other_start, other_end in match.get_opcodes():
        differs = kind != "equal"
        pieces.append(("".join(words[start:end]), differs))
        other_pieces.append(("".join(others[other_start:other_end]), differs))
    pieces.append((rest, False))
    other_pieces.append((other_rest, False))
    return _told(pieces), _told(other_pieces)


def _split(text: str, most: int) -> tuple[list[str], str]:
    """(words with the white space before each, what follows them)."""
    words: list[str] = []
    end = 0
    for found in _WORD.finditer(text):
        if len(words) == most:
            break
        words.append(found.group())
        end = found.end()
    return words, text[end:]


def _told(pieces: list[Piece]) -> list[Piece]:
    return [piece for piece in pieces if piece[0]]
