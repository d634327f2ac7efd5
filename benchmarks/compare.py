"""Two results of one task, question by question.

Both answer the same items, so what an item adds to both falls out of the difference: a gain of one
or two points, which TPO's are, is seen in this way and not from two separate scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from benchmarks.paired_test import paired_test
from benchmarks.task_result import TaskResult
from data_pipelines.errors import InputError

# What must be equal for two lines to be about the same question. Prompts may differ, and are told.
SAME = ("question", "options", "answer")
WHOLE = "all"
# These differ in every comparison, or tell nothing that the lines do not.
NOT_TOLD = ("changed", "checkpoint", "questions", "right_answers")


def shared_items(first: TaskResult, second: TaskResult) -> tuple[TaskResult, TaskResult]:
    """Both results cut down to the items that are in both, in the order of the first."""
    known = {line["item"]: line for line in second.items}
    items = [line for line in first.items if line["item"] in known]
    if not items:
        raise InputError(f"{first.folder} and {second.folder}: no item is in both")
    return replace(first, items=items), replace(
        second, items=[known[line["item"]] for line in items]
    )


def compare_results(first: TaskResult, second: TaskResult) -> dict[str, Any]:
    """What the second does better and worse than the first, as plain data.

    Returns:
      task, metric: names.
      names: of both models.
      values: both headline numbers, as their task aggregates them.
      items, videos: how many.
      settings: a line for every setting that differs between them.
      same_words, same_answer: items of which both said the same, and chose the same.
      groups: axis -> name -> {items, first, second (accuracies), difference, standard_error, low,
        high, p, wins, losses}; axis "all" has the one name "all".
      wins, losses: numbers of the items (lines) that only the second, only the first has right.

    Raises:
      InputError: they are not of the same items.
    """
    _check_same(first, second)
    base, new = (np.array([one["correct"] for one in r.items]) for r in (first, second))
    videos = [str(one["video"]) for one in first.items]
    groups = {
        axis: {
            name: _difference(base[at], new[at], [videos[i] for i in at])
            for name, at in places.items()
        }
        for axis, places in _groups(first.items).items()
    }
    return {
        "task": first.manifest["task"],
        "metric": first.manifest["scores"]["metric"],
        "names": [first.name, second.name],
        "values": [one.manifest["scores"]["value"] for one in (first, second)],
        "items": len(first.items),
        "videos": len(set(videos)),
        "settings": _settings_that_differ(first, second),
        "same_words": sum(
            one["said"].strip() == other["said"].strip()
            for one, other in zip(first.items, second.items, strict=True)
        ),
        "same_answer": sum(
            one["predicted"] == other["predicted"]
            for one, other in zip(first.items, second.items, strict=True)
        ),
        "groups": groups,
        "wins": np.flatnonzero(new & ~base).tolist(),
        "losses": np.flatnonzero(base & ~new).tolist(),
    }


def headline(compared: Mapping[str, Any]) -> str:
    """One sentence that its interval supports."""
    whole = compared["groups"][WHOLE][WHOLE]
    points = (
        f"{points_text(whole)} points (p = {whole['p']:.2g}; {whole['wins']} questions won, "
        f"{whole['losses']} lost)"
    )
    if whole["low"] > 0:
        return f"The second answers better: {points}."
    if whole["high"] < 0:
        return f"The second answers worse: {points}."
    return f"They cannot be told apart: {points}."


def agreement(compared: Mapping[str, Any]) -> str:
    """How often both said the same: what tells whether two programs run one model alike."""
    count = compared["items"]
    return (
        f"The same choice in {compared['same_answer']} of {count} questions, the same words in "
        f"{compared['same_words']}."
    )


def points_text(difference: Mapping[str, float]) -> str:
    """A difference with its interval in points: "+1.5 [-0.2, +3.1]"."""
    value, low, high = (f"{100 * difference[key]:+.1f}" for key in ("difference", "low", "high"))
    return f"{value} [{low}, {high}]"


def _check_same(first: TaskResult, second: TaskResult) -> None:
    where = f"{first.folder} and {second.folder}"
    for one, other in ((first, second), (second, first)):
        lacking = {line["item"] for line in one.items} - {line["item"] for line in other.items}
        if lacking:
            raise InputError(
                f"{where}: not of the same items; {len(lacking)} of {one.folder} are not in "
                f"{other.folder}, such as {min(lacking)!r}: evaluate both on the same data"
            )
    for line, other_line in zip(first.items, second.items, strict=True):
        for key in SAME:
            if line["item"] != other_line["item"] or line[key] != other_line[key]:
                raise InputError(
                    f"{where}: not of the same items; {line['item']!r} differs in its {key}: "
                    "evaluate both on the same data"
                )


def _settings_that_differ(first: TaskResult, second: TaskResult) -> list[str]:
    ours, theirs = (dict(_flat(one.manifest["made_from"])) for one in (first, second))
    return [
        f"{key}: {ours[key]!r} and {theirs[key]!r}"
        for key in sorted(ours.keys() & theirs.keys())  # of a log, little is known
        if key not in NOT_TOLD and ours[key] != theirs[key]
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _groups(items: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {WHOLE: {WHOLE: list(range(len(items)))}}
    for number, item in enumerate(items):
        for axis, name in item["groups"].items():
            found.setdefault(axis, {}).setdefault(name, []).append(number)
    return {axis: dict(sorted(places.items())) for axis, places in found.items()}


def _difference(base: np.ndarray, new: np.ndarray, videos: Sequence[str]) -> dict[str, Any]:
    return {
        "items": len(base),
        "first": float(base.mean()),
        "second": float(new.mean()),
        **asdict(paired_test(base, new, videos)),
        "wins": int((new & ~base).sum()),
        "losses": int((base & ~new).sum()),
    }
