"""What keeps a candidate from becoming a pair. Each filter has a name and gives a reason."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipelines.curation.judge import Verdict
from data_pipelines.errors import InputError

WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What the filters that need no judge object to. Lengths are in words; 0 means no bound.

    Attributes:
      min_words: of either answer, at least.
      max_words: of either answer, at most.
      max_length_ratio: of the longer answer to the shorter, at most.
      contained: drop where one answer's words stand inside the other's.
      repeats: drop an answer that says the same 1 to 8 words so often in a row.
      max_repeated: drop an answer of 20 words or more when more than this part of its runs of four
        words were said before in it; 1 for no bound.
      unfinished: drop a chosen answer that ran out of tokens before it ended.
      duplicates: drop a pair when one that is kept asks the same of the same video.
    """

    min_words: int = 1
    max_words: int = 0
    max_length_ratio: float = 0.0
    contained: bool = True
    repeats: int = 4
    max_repeated: float = 0.5
    unfinished: bool = True
    duplicates: bool = True

    def __post_init__(self) -> None:
        for name in ("min_words", "max_words", "repeats", "max_length_ratio", "max_repeated"):
            if not getattr(self, name) >= 0:
                raise InputError(f"curate.filters.{name} is {getattr(self, name)}; must be 0 up")
        if self.repeats == 1:
            raise InputError("curate.filters.repeats is 1; must be 2 or more, or 0 for no bound")
        if 0 < self.max_length_ratio < 1:
            raise InputError(
                f"curate.filters.max_length_ratio is {self.max_length_ratio}; must be 1 up, or 0"
            )


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation: what "identical" and lengths go by.

    A text without any, as in a script without spaces or of signs alone, gives its characters.
    """
    return WORD.findall(text.casefold()) or list(text.strip())


def objection_to_texts(
    chosen: str, rejected: str, config: FilterConfig, *, chosen_finished: bool = True
) -> tuple[str, str] | None:
    """(filter name, reason) of the first filter that objects to the texts alone, or None."""
    if not chosen.strip() or not rejected.strip():
        return "empty", "an answer is empty"
    sides = {"chosen": words_of(chosen), "rejected": words_of(rejected)}
    better, worse = sides.values()
    if better == worse:
        return "identical", "both answers are the same, so there is nothing to prefer"
    for name, words in sides.items():
        if len(words) < config.min_words:
            return "too_short", f"the {name} answer has {len(words)} words"
        if config.max_words and len(words) > config.max_words:
            return "too_long", f"the {name} answer has {len(words)} words"
    if config.unfinished and not chosen_finished:
        return "unfinished", "the chosen answer ran out of tokens"
    for name, words in sides.items():
        if told := _repetition(words, config):
            return "repeated", f"the {name} answer {told}"
    if config.contained:
        for name, inner, outer in (
            ("chosen", better, worse),
            ("rejected", worse, better),
        ):
            if _stands_in(inner, outer):
                return "contained", f"the {name} answer stands inside the other"
    longer, shorter = max(len(better), len(worse)), min(len(better), len(worse))
    if config.max_length_ratio and longer > config.max_length_ratio * shorter:
        return "length_ratio", f"{longer} words against {shorter}"
    return None


def objection_of_judge(verdict: Verdict) -> tuple[str, str] | None:
    """(filter name, reason) of the first of the judge's three that objects, or None."""
    if not verdict.readable:
        return "judge_unreadable", verdict.why
    if not verdict.unambiguous:
        return "ambiguous", verdict.why
    if not verdict.chosen_right:
        return "chosen_wrong", verdict.why
    if not verdict.chosen_better:
        return "rejected_not_worse", verdict.why
    return None


def reason_to_drop(
    chosen: str,
    rejected: str,
    verdict: Verdict,
    *,
    post_filter: bool = True,
    config: FilterConfig = FilterConfig(),
) -> tuple[str, str] | None:
    """(filter name, reason) of the first filter that objects, or None to keep.

    Without `post_filter` the verdict is not asked: only what the texts alone rule out is dropped.
    """
    objection = objection_to_texts(chosen, rejected, config)
    if objection is not None or not post_filter:
        return objection
    return objection_of_judge(verdict)


def _stands_in(inner: Sequence[str], outer: Sequence[str]) -> bool:
    size = len(inner)
    return any(outer[at : at + size] == inner for at in range(len(outer) - size + 1))


def _repetition(words: list[str], config: FilterConfig) -> str:
    """How a text repeats itself; empty if it does not."""
    times = config.repeats
    for size in range(1, 9) if times else ():
        for at in range(len(words) - times * size + 1):
            said = words[at : at + size]
            if words[at : at + times * size] == said * times:
                return f"says {' '.join(said)!r} {times} times in a row"
    if len(words) >= 20 and config.max_repeated < 1:
        fours = Counter(tuple(words[at : at + 4]) for at in range(len(words) - 3))
        again = 1 - len(fours) / fours.total()
        if again > config.max_repeated:
            return f"has said {again:.0%} of its runs of four words before"
    return ""
