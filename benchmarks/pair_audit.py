"""What pairs are worth: are chosen answers right and rejected ones wrong, before each filter and
after it? Only scoring may look, since it takes the truth.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.scoring import is_correct
from data_pipelines.synthetic_events import NUMBERS

# In the order in which curation applies them; those before an answer is asked for are not audited.
FILTERS = (
    *("empty", "identical", "repetitive", "too_short", "too_long", "lengths_apart"),
    *("inside_other", "unfinished", "judge_unreadable", "ambiguous", "chosen_wrong"),
    *("rejected_not_worse", "duplicate", "mix"),
)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Shares of `pairs` candidates in which a side is right; no question of theirs is unknown."""

    pairs: int
    chosen_right: float
    rejected_wrong: float
    both_right: float
    no_answer: float  # the question has none: a caption was misread


def audit_pairs(
    pairs: Sequence[Mapping[str, Any]],
    dropped: Sequence[Mapping[str, Any]],
    truth: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """Audits of all answered candidates, and of what is left after each filter that dropped some.

    Args:
      pairs: of curation, as JSON objects.
      dropped: its dropped.jsonl; entries without both answers are passed over.
      truth: video id -> question -> right answer, of every question that has one.

    Returns:
      one entry a stage: `after` ("asked", then the filter's name) and the fields of `Audit`.
    """
    answered = [entry for entry in dropped if entry["chosen"] and entry["rejected"]]
    left = [*pairs, *answered]
    stages: list[dict[str, Any]] = [{"after": "asked"} | asdict(_audit(left, truth))]
    others = sorted({entry["filter"] for entry in answered} - set(FILTERS))
    for name in (*FILTERS, *others):
        going = {entry["id"] for entry in answered if entry["filter"] == name}
        if going:
            left = [entry for entry in left if entry["id"] not in going]
            stages.append({"after": name} | asdict(_audit(left, truth)))
    return stages


def _audit(entries: Sequence[Mapping[str, Any]], truth: Mapping[str, Mapping[str, str]]) -> Audit:
    right = [truth[entry["video_id"]].get(entry["question"]) for entry in entries]
    chosen = [
        r is not None and is_correct(e["chosen"], r) for e, r in zip(entries, right, strict=True)
    ]
    rejected = [
        r is not None and is_correct(e["rejected"], r) for e, r in zip(entries, right, strict=True)
    ]
    return Audit(
        pairs=len(entries),
        chosen_right=_share(chosen),
        rejected_wrong=_share(not one for one in rejected),
        both_right=_share(c and r for c, r in zip(chosen, rejected, strict=True)),
        no_answer=_share(one is None for one in right),
    )


def _share(holds: Iterable[bool]) -> float:
    told = list(holds)
    return sum(told) / len(told) if told else 0.0


def miscounts(
    pairs: Sequence[Mapping[str, Any]], truth: Mapping[str, Mapping[str, str]]
) -> dict[str, int]:
    """Of the pairs that ask for a number: how often the rejected one is over, under or neither.

    Were it mostly one of them, a model could learn to say a larger or a smaller number.
    """
    found = {"over": 0, "under": 0, "neither": 0}
    for pair in pairs:
        right = truth[pair["video_id"]].get(pair["question"])
        if pair["kind"] == "count" and right is not None:
            numbers = [_number(pair["rejected"]), _number(right)]
            if None in numbers or numbers[0] == numbers[1]:
                found["neither"] += 1
            else:
                found["over" if numbers[0] > numbers[1] else "under"] += 1  # type: ignore[operator]
    return found


def _number(text: str) -> int | None:
    first = text.split(" ")[0].lower()
    return NUMBERS.index(first) + 1 if first in NUMBERS else None
