"""What can be said against a pair from its two texts alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_pipelines.errors import InputError

_WORD = re.compile(r"\w+")
LONGEST_REPEATED = 8  # words of what is looked for said over and over


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """Each rule can be turned off: by False, or by 0 for "no bound". Lengths are in words.

    Attributes:
      inside: an answer that holds the other word for word: the longer one is no other answer
        (after TEMPLE, arXiv 2503.16929).
      fewest: of each answer.
      most: of each answer.
      length_ratio: of the longer answer to the shorter; a model that learns from pairs of uneven
        length learns to be long, or short.
      repeats: that often in a row the same words, or the same character, make an answer
        degenerate, as those of a model whose weights were loaded wrongly.
    """

    inside: bool = True
    fewest: int = 1
    most: int = 0
    length_ratio: float = 0.0
    repeats: int = 8

    def __post_init__(self) -> None:
        bounds: tuple[tuple[str, Any, str], ...] = (
            ("fewest", self.fewest >= 0, "0 or more"),
            ("most", self.most == 0 or self.most >= self.fewest, "0, or no less than fewest"),
            ("length_ratio", self.length_ratio == 0 or self.length_ratio >= 1, "0, or 1 or more"),
            ("repeats", self.repeats == 0 or self.repeats >= 2, "0, or 2 or more"),
        )
        for name, right, mend in bounds:
            if not right:
                raise InputError(f"curate.texts.{name} is {getattr(self, name)}; give {mend}")


def objection_to_texts(chosen: str, rejected: str, rules: TextRules) -> tuple[str, str] | None:
    """(filter name, reason) of the first rule that objects, or None."""
    return next(_objections(chosen, rejected, rules), None)


def _objections(chosen: str, rejected: str, rules: TextRules) -> Iterator[tuple[str, str]]:
    sides = {"chosen": chosen, "rejected": rejected}
    words = {side: _words(text) for side, text in sides.items()}
    for side, text in sides.items():
        if not text.strip():
            yield "empty", f"the {side} answer is empty"
    if words["chosen"] == words["rejected"] and _folded(chosen) == _folded(rejected):
        yield "identical", "both answers are the same, so there is nothing to prefer"
    for side, text in sides.items():
        if rules.repeats and (said := repeated(text, rules.repeats)):
            yield "repetitive", f"the {side} answer says {said!r} {rules.repeats} times in a row"
    for side, told in words.items():
        if len(told) < rules.fewest:
            yield "too_short", f"the {side} answer has {len(told)} words, not {rules.fewest}"
        if rules.most and len(told) > rules.most:
            yield "too_long", f"the {side} answer has {len(told)} words, more than {rules.most}"
    short, long = sorted(words.values(), key=len)
    if rules.length_ratio and len(long) > rules.length_ratio * len(short):
        yield "lengths_apart", f"{len(long)} words against {len(short)}"
    if rules.inside and short and short != long and f" {' '.join(short)} " in f" {' '.join(long)} ":
        yield "inside_other", "one answer is in the other, word for word"


def repeated(text: str, times: int) -> str | None:
    """The words, or the character, that the text says `times` times in a row, if it does."""
    found = re.search(rf"([^\s\d])\1{{{times - 1},}}", text)
    if found:
        return found[1]
    words = _words(text)
    for length in range(1, LONGEST_REPEATED + 1):
        run = 0  # words that equal the one `length` before them, without a break
        for at in range(length, len(words)):
            run = run + 1 if words[at] == words[at - length] else 0
            if run >= length * (times - 1):
                return " ".join(words[at - length + 1 : at + 1])
    return None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _folded(text: str) -> str:
    """Without what does not count: case, white space, and the mark at the end."""
    return " ".join(text.casefold().split()).rstrip(".!?")
