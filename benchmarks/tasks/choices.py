"""What tasks with options have in common: letters, and accuracy by group."""

import random
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from benchmarks.letters import Rule, find_letter, read_letter
from benchmarks.tasks.item import Item
from benchmarks.tasks.task import Scored


def letters(count: int) -> str:
    """The letters of so many options: "ABC"."""
    return ascii_uppercase[:count]


# The last letter that the older rules look for.
_LAST = {"legacy": "D", "longvideobench": "E"}


def rule_for(rule: Rule, among: str) -> Rule:
    """The rule, or "new" where it does not look for all of the letters `among`."""
    return "new" if rule in _LAST and among[-1] > _LAST[rule] else rule


def score_letter(said: str, answer: str, among: str, rule: Rule, rng: random.Random) -> Scored:
    """Looks for one of the letters `among` and compares it with the right one."""
    parsed = bool(read_letter(said, among, rule))
    predicted = find_letter(said, among, rule, rng)
    return Scored(predicted=predicted, correct=predicted == answer, parsed=parsed)


def group_accuracy(items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, Any]:
    """{axis: {name: {"items", "correct", "value"}}}, names sorted; `value` is 0 to 1."""
    counts: dict[str, dict[str, list[int]]] = {}
    for item, one in zip(items, scored, strict=True):
        for axis, name in item.groups.items():
            count = counts.setdefault(axis, {}).setdefault(name, [0, 0])
            count[0] += 1
            count[1] += one.correct
    return {
        axis: {
            name: {"items": total, "correct": right, "value": right / total}
            for name, (total, right) in sorted(names.items())
        }
        for axis, names in counts.items()
    }


def share_correct(scored: Sequence[Scored]) -> float:
    """Correct of all, 0 to 1; 0 of none."""
    return sum(one.correct for one in scored) / len(scored) if scored else 0.0


def summary(
    metric: str,
    metrics: Mapping[str, float],
    items: Sequence[Item],
    scored: Sequence[Scored],
) -> dict[str, Any]:
    """What a task's `summarise` returns; `metric` names the headline number among `metrics`."""
    unparsed = sum(not one.parsed for one in scored)
    return {
        "metric": metric,
        "value": metrics[metric],
        "metrics": dict(metrics),
        "groups": group_accuracy(items, scored),
        "unparsed": unparsed / len(scored) if scored else 0.0,
    }


def summarise_accuracy(
    metric: str, items: Sequence[Item], scored: Sequence[Scored]
) -> dict[str, Any]:
    """The summary of a task whose headline number is plain accuracy, 0 to 100."""
    return summary(metric, {metric: 100 * share_correct(scored)}, items, scored)
