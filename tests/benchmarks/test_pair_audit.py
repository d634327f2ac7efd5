"""What pairs are worth, on pairs whose truth is written by hand."""

import ast
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pair_audit
from benchmarks.pair_audit import FILTERS, audit_pairs, miscounts

CEILING, FLOOR, COUNT = "Which ceiling?", "Which floor?", "How many?"
TRUTH = {
    "a": {CEILING: "The ceiling is blue.", COUNT: "Two things."},
    "b": {FLOOR: "The floor is pink.", COUNT: "One thing."},
}
BLUE, GREEN, PINK = "The ceiling is blue.", "The ceiling is green.", "The floor is pink."


def pair(
    number: int, question: str, chosen: str, rejected: str, video: str = "a", dropped: str = ""
) -> dict[str, Any]:
    kind = {CEILING: "ceiling", FLOOR: "floor", COUNT: "count"}[question]
    made = {"id": str(number), "video_id": video, "kind": kind, "question": question}
    told = made | {"chosen": chosen, "rejected": rejected}
    return told | {"filter": dropped, "reason": "because"} if dropped else told


PAIRS = [
    pair(0, CEILING, BLUE, GREEN),  # as it should be
    pair(1, CEILING, BLUE.lower(), "the ceiling is blue"),  # both right, however they are typed
    pair(2, FLOOR, "The floor is red.", PINK, video="b"),  # the wrong way round
    pair(3, FLOOR, PINK, GREEN),  # asked of a video that has no such floor: a caption misread
]
DROPPED = [
    pair(4, CEILING, GREEN, GREEN, dropped="identical"),
    pair(5, CEILING, GREEN, BLUE, dropped="chosen_wrong"),
    pair(6, CEILING, BLUE, GREEN, dropped="mix"),
    # Never answered, or on one side alone: not audited, whatever they say.
    pair(7, CEILING, "", "", dropped="ambiguous"),
    pair(8, CEILING, BLUE, "", dropped="empty"),
    pair(9, CEILING, "", GREEN, dropped="empty"),
]


def stage(
    after: str, pairs: int, right: int, wrong: int, both: int, unknown: int
) -> dict[str, Any]:
    return {
        "after": after,
        "pairs": pairs,
        "chosen_right": pytest.approx(right / pairs),
        "rejected_wrong": pytest.approx(wrong / pairs),
        "both_right": pytest.approx(both / pairs),
        "no_answer": pytest.approx(unknown / pairs),
    }


def test_shares_by_hand_after_every_filter_that_dropped_something() -> None:
    assert audit_pairs(PAIRS, DROPPED, TRUTH) == [
        stage("asked", 7, right=3, wrong=4, both=1, unknown=1),
        stage("identical", 6, right=3, wrong=3, both=1, unknown=1),
        stage("chosen_wrong", 5, right=3, wrong=3, both=1, unknown=1),
        stage("mix", 4, right=2, wrong=2, both=1, unknown=1),
    ]


def test_filters_that_dropped_nothing_are_no_stage() -> None:
    assert [one["after"] for one in audit_pairs(PAIRS, [], TRUTH)] == ["asked"]
    assert audit_pairs(PAIRS[:1], [], TRUTH) == [stage("asked", 1, 1, 1, 0, 0)]
    # In the order in which curation applies them, not the order of the file.
    told = [entry["after"] for entry in audit_pairs(PAIRS, DROPPED[::-1], TRUTH)]
    assert told == ["asked", "identical", "chosen_wrong", "mix"]


def test_every_filter_of_curation_is_known() -> None:
    """One that is not would leave what it dropped in all that follows."""
    root = Path(pair_audit.__file__).parents[1] / "data_pipelines" / "curation"
    named = {
        node.elts[0].value
        for name in ("filters.py", "text_rules.py")
        for node in ast.walk(ast.parse((root / name).read_text()))
        if isinstance(node, ast.Tuple) and len(node.elts) == 2
        if isinstance(node.elts[0], ast.Constant)
        and isinstance(node.elts[1], ast.JoinedStr | ast.Constant | ast.Attribute)
    }
    assert {"identical", "inside_other", "rejected_not_worse"} <= named <= set(FILTERS)
    dropped = [pair(n, CEILING, GREEN, BLUE, dropped=name) for n, name in enumerate(FILTERS)]
    stages = audit_pairs([], dropped, TRUTH)
    assert [one["after"] for one in stages] == ["asked", *FILTERS]
    assert [one["pairs"] for one in stages] == list(range(len(FILTERS), -1, -1))
    assert stages[-1] == {"after": "mix", "pairs": 0} | dict.fromkeys(
        ("chosen_right", "rejected_wrong", "both_right", "no_answer"), 0.0
    )


def test_numbers_that_are_too_high_or_too_low() -> None:
    told = [
        pair(0, COUNT, "Two things.", "Three things."),
        pair(1, COUNT, "Two things.", "Eight things."),
        pair(2, COUNT, "Two things.", "One thing."),
        pair(3, COUNT, "Two things.", "two things."),
        pair(4, COUNT, "Two things.", "I do not know."),
        pair(5, COUNT, "Two things.", ""),
        pair(6, COUNT, "One thing.", "Two things.", video="b"),
        pair(7, CEILING, BLUE, "Three things."),  # no number is asked for
        pair(8, COUNT, "Two things.", "Three things.", video="c"),
    ]
    truth = TRUTH | {"c": {}}  # of the last there is no answer
    assert miscounts(told, truth) == {"over": 3, "under": 1, "neither": 3}
    assert miscounts([], truth) == {"over": 0, "under": 0, "neither": 0}
