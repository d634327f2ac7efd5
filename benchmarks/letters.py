"""Which option a model chose: from what it said to a letter, by the rules of lmms-eval 0.7.3.

Rules have names, since they differ and scores with them: "new" is that of Video-MME and MLVU since
version 0.7, "legacy" what they had in January 2025, when the numbers of TPO were measured, and
"longvideobench" is that benchmark's own, which guesses where it finds no letter.
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import Literal

Rule = Literal["new", "legacy", "longvideobench"]

# What is said before the letter. Each is looked for by itself; one that holds another counts too.
_PHRASES = (
    *(
        f"{article}{what} is"
        for article in ("", "the ")
        for what in (
            *("answer", "correct answer", "best answer"),
            *("correct option", "best option"),
            *("choice", "correct choice"),
        )
    ),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
# The legacy rule lacks a comma in its source, so two of its prefixes are stuck to their neighbours.
_LEGACY_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
)
_OWN_PREFIXES = (
    *_LEGACY_PREFIXES[:4],
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)
_TRIMMED = (",", ".", "!", "?", ";", ":", "'", '"')
_LONG = 10  # words; a longer answer without a letter is not searched


def find_letter(said: str, letters: Sequence[str], rule: Rule, rng: random.Random) -> str:
    """The option that was chosen, or "" if none can be told.

    Args:
      said: by the model.
      letters: of the item's options, in order. "new" looks for these; "legacy" for A to D and
        "longvideobench" for A to E whatever the item has, as their sources do.
      rule: see above.
      rng: for "longvideobench", which draws one of `letters` where it finds none.
    """
    letter = read_letter(said, letters, rule)
    return letter or (rng.choice(list(letters)) if rule == "longvideobench" else "")


def read_letter(said: str, letters: Sequence[str], rule: Rule) -> str:
    """As `find_letter`, but "" wherever the text holds none: no rule guesses."""
    if rule == "new":
        return _find_by_format(said, letters)
    if rule == "legacy":
        return _find_first(said, _LEGACY_PREFIXES, "[ABCD]")
    return _find_first(said, _OWN_PREFIXES, "[ABCDE]")


def _find_first(said: str, prefixes: Sequence[str], pattern: str) -> str:
    """The first letter after the prefixes are taken out, be it in a word."""
    text = said.strip()
    for prefix in prefixes:
        text = text.replace(prefix, "")
    found = re.search(pattern, text)
    return found[0] if found else ""


def _find_by_format(said: str, letters: Sequence[str]) -> str:
    """The letter in the form that is surest; of several in one form, the last."""
    text = said.strip()
    for mark in _TRIMMED:  # each once, in this order
        text = text.strip(mark)
    text = f" {text} "
    if not said.strip():
        return ""
    found = list(_candidates(text, letters)) or [
        (0, text.rfind(letter), letter) for letter in letters if letter in text
    ]
    # Of equals the first wins, as in a stable sort from the top.
    return max(found, key=lambda one: one[:2])[2] if found else ""


def _candidates(text: str, letters: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(how sure, where, letter) of every form in which a letter stands in the text."""
    forms = ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} "))
    for sure, form in forms:
        for letter in letters:
            if form.format(letter) in text:
                yield sure, text.rfind(form.format(letter)), letter
    lowered = text.lower()
    for phrase in _PHRASES:
        at = lowered.find(phrase)
        for letter in letters if at >= 0 else ():
            where = text.find(letter, at + len(phrase))
            if where >= 0:
                yield 7, where, letter
    core = text.strip()
    for letter in letters:
        if core.startswith(letter) and not core[1:2].isalpha():
            yield 10, 0, letter
        if core.endswith(letter) and not core[:-1][-1:].isalpha():
            yield 9, len(text) - 1, letter
