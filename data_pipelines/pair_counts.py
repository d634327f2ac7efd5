"""What a file of pairs holds: how many of what kind, how long, how often the same."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from tokenizers import Tokenizer

from data_pipelines.pair_formats.row import UNKNOWN, Row

# Why a row is of no use in training: said before, or nothing to prefer.
Useless = Literal["duplicate", "identical", "identical_tokens"]
NOT_TOLD = "not told"


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """The lengths of all chosen or all rejected answers.

    Attributes:
      least, middle, most: of the lengths; all 0 where there is no answer.
      mean: their mean.
      histogram: answers by length in steps that double: "1", "2-3", "4-7", ...
    """

    least: int
    middle: float
    most: int
    mean: float
    histogram: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class PairCounts:
    """Counts over rows.

    Attributes:
      rows: all of them.
      videos: different videos.
      without_rejected: rows for SFT.
      granularity: rows by granularity; "not told" where the file does not.
      unit: what lengths are counted in: "tokens" with a tokenizer, else "words".
      chosen, rejected: the lengths of the answers.
      chosen_longer: pairs whose chosen answer is the longer one, rejected_longer the other way.
      duplicates: rows that say the same as an earlier one.
      same_question: rows with the video and question of an earlier one, duplicates among them.
      identical: pairs of two identical texts.
      identical_tokens: other pairs whose answers give the same tokens; None without a tokenizer.
      chosen_in_rejected: pairs whose chosen answer is, word for word, a part of the other.
      rejected_in_chosen: the other way.
      sources, licences, generators: rows by what they say, the most frequent first.
    """

    rows: int
    videos: int
    without_rejected: int
    granularity: dict[str, int]
    unit: Literal["words", "tokens"]
    chosen: Lengths
    rejected: Lengths
    chosen_longer: int
    rejected_longer: int
    duplicates: int
    same_question: int
    identical: int
    identical_tokens: int | None
    chosen_in_rejected: int
    rejected_in_chosen: int
    sources: dict[str, int]
    licences: dict[str, int]
    generators: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain dicts."""
        return asdict(self)

    def unknown(self) -> dict[str, int]:
        """How many rows do not say their source, licence, generator; those of none left out."""
        told = {"source": self.sources, "licence": self.licences, "generator": self.generators}
        return {key: counts[UNKNOWN] for key, counts in told.items() if UNKNOWN in counts}


def count_rows(rows: Sequence[Row], tokenizer: Tokenizer | None = None) -> PairCounts:
    """Counts rows; lengths and what is identical in tokens where a tokenizer is given."""
    found = Counter(find_useless(rows, tokenizer).values())
    lengths = [[_length(text, tokenizer) for text in (row.chosen, row.rejected)] for row in rows]
    both = [(one, other) for one, other in lengths if other is not None]
    pairs = [
        (split_words(row.chosen), split_words(row.rejected))
        for row in rows
        if row.rejected is not None
    ]
    return PairCounts(
        rows=len(rows),
        videos=len({row.video_key for row in rows}),
        without_rejected=len(rows) - len(both),
        granularity=_ranked(row.granularity or NOT_TOLD for row in rows),
        unit="words" if tokenizer is None else "tokens",
        chosen=measure_lengths([one for one, _ in lengths if one is not None]),
        rejected=measure_lengths([other for _, other in lengths if other is not None]),
        chosen_longer=sum(one > other for one, other in both if one is not None),
        rejected_longer=sum(one < other for one, other in both if one is not None),
        duplicates=found["duplicate"],
        same_question=len(rows) - len({(row.video_key, row.question) for row in rows}),
        identical=found["identical"],
        identical_tokens=None if tokenizer is None else found["identical_tokens"],
        chosen_in_rejected=sum(_inside(chosen, rejected) for chosen, rejected in pairs),
        rejected_in_chosen=sum(_inside(rejected, chosen) for chosen, rejected in pairs),
        sources=_ranked(row.source for row in rows),
        licences=_ranked(row.licence for row in rows),
        generators=_ranked(row.generator for row in rows),
    )


def find_useless(rows: Sequence[Row], tokenizer: Tokenizer | None = None) -> dict[int, Useless]:
    """The numbers (from 0) of rows that training has no use for, and why."""
    useless: dict[int, Useless] = {}
    seen = set()
    for number, row in enumerate(rows):
        said = (row.video_key, row.question, row.chosen, row.rejected)
        if said in seen:
            useless[number] = "duplicate"
        elif row.chosen == row.rejected:
            useless[number] = "identical"
        elif tokenizer is not None and _same_tokens(row, tokenizer):
            useless[number] = "identical_tokens"
        seen.add(said)
    return useless


def _same_tokens(row: Row, tokenizer: Tokenizer) -> bool:
    """Different texts may give the same tokens, such as two ways to write one accent."""
    if row.rejected is None:
        return False
    return _tokens(row.chosen, tokenizer) == _tokens(row.rejected, tokenizer)


def _tokens(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def split_words(text: str) -> list[str]:
    """The words that lengths are counted in, without case and signs."""
    return re.findall(r"\w+", text.casefold())


def _length(text: str | None, tokenizer: Tokenizer | None) -> int | None:
    if text is None:
        return None
    return len(split_words(text) if tokenizer is None else _tokens(text, tokenizer))


def _inside(part: list[str], whole: list[str]) -> bool:
    return bool(part) and part != whole and f" {' '.join(part)} " in f" {' '.join(whole)} "


def measure_lengths(values: list[int]) -> Lengths:
    """The lengths, all 0 where there are none."""
    if not values:
        return Lengths(least=0, middle=0.0, most=0, mean=0.0, histogram={})
    # Numbers of the same bit length: 0, 1, 2 to 3, 4 to 7 and so on.
    bits = Counter(value.bit_length() for value in values)
    return Lengths(
        least=min(values),
        middle=float(median(values)),
        most=max(values),
        mean=sum(values) / len(values),
        histogram={_label(bit): bits[bit] for bit in range(min(bits), max(bits) + 1)},
    )


def _label(bit: int) -> str:
    low, high = (1 << bit) >> 1, (1 << bit) - 1
    return str(low) if low == high or bit == 0 else f"{low}-{high}"


def _ranked(values: Iterable[str]) -> dict[str, int]:
    """Counts, the most frequent first, then by alphabet."""
    counts = Counter(value or UNKNOWN for value in values)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
