"""The questions drawn about synthetic videos: right, different, evenly spread, and stable."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.tasks.item import Item
from benchmarks.tasks.synthetic import questions
from data_pipelines.errors import InputError
from data_pipelines.synthetic import Shown, draw_events, draw_timeline
from data_pipelines.synthetic_events import COMPREHENSIVE_KINDS, LOCALIZED_KINDS, Event


def shown(*events: tuple[str, str, str, str]) -> list[Shown]:
    return [
        Shown(
            event=Event(count=count, colour=colour, shape=shape, motion=motion),
            start=float(5 * at),
            end=float(5 * at + 5),
        )
        for at, (count, colour, shape, motion) in enumerate(events)
    ]


TINY = shown(
    ("one", "red", "ring", "left"),
    ("two", "cyan", "cross", "up"),
    ("three", "white", "ring", "down"),
)
# Every question there is about the tiny video, written by hand.
LOCALIZED = {
    "What are the red shapes?": "The red shapes are rings.",
    "What are the cyan shapes?": "The cyan shapes are crosses.",
    "What are the white shapes?": "The white shapes are rings.",
    "Which way do the red shapes move?": "The red shapes move left.",
    "Which way do the cyan shapes move?": "The cyan shapes move up.",
    "Which way do the white shapes move?": "The white shapes move down.",
    "How many red shapes are there?": "There is one red shape.",
    "How many cyan shapes are there?": "There are two cyan shapes.",
    "How many white shapes are there?": "There are three white shapes.",
}
COMPREHENSIVE = {
    "What comes right after the red shapes?": "The cyan shapes come right after the red shapes.",
    "What comes right after the cyan shapes?": "The white shapes come right after the cyan shapes.",
    "What comes right before the cyan shapes?": "The red shapes come right before the cyan shapes.",
    "What comes right before the white shapes?": (
        "The cyan shapes come right before the white shapes."
    ),
    "What comes first in the video?": "The red shapes come first.",
    "What comes last in the video?": "The white shapes come last.",
}
ORDERS = {
    "Which come first, the red shapes or the cyan shapes?": "The red shapes come first.",
    "Which come first, the cyan shapes or the red shapes?": "The red shapes come first.",
    "Which come first, the red shapes or the white shapes?": "The red shapes come first.",
    "Which come first, the white shapes or the red shapes?": "The red shapes come first.",
    "Which come first, the cyan shapes or the white shapes?": "The cyan shapes come first.",
    "Which come first, the white shapes or the cyan shapes?": "The cyan shapes come first.",
}


def ask(truth: dict[str, list[Shown]], localized: int, whole: int, seed: int = 0) -> list[Item]:
    return questions(truth, seed=seed, localized_per_video=localized, comprehensive_per_video=whole)


@pytest.fixture(scope="module")
def truth() -> dict[str, list[Shown]]:
    rng = np.random.default_rng(7)
    return {f"v{i:03d}.mp4": draw_timeline(rng, draw_events(rng, 5)) for i in range(60)}


def test_all_questions_about_a_tiny_video_are_right() -> None:
    items = ask({"tiny.mp4": TINY}, 9, 9)
    told = {item.question: item.answer for item in items}
    assert len(told) == len(items) == 18
    assert {q: a for q, a in told.items() if q in LOCALIZED} == LOCALIZED
    assert {q: a for q, a in told.items() if q in COMPREHENSIVE} == COMPREHENSIVE
    orders = {item.question: item.answer for item in items if item.kind == "order"}
    assert len(orders) == 3 and orders.items() <= ORDERS.items()
    assert {item.granularity for item in items if item.kind in LOCALIZED_KINDS} == {"localized"}


def test_ids_and_questions_are_unique(truth: dict[str, list[Shown]]) -> None:
    items = ask(truth, 12, 12)
    assert len({item.id for item in items}) == len(items)
    assert len({(item.video, item.question) for item in items}) == len(items)


def test_more_videos_and_more_questions_leave_the_others(truth: dict[str, list[Shown]]) -> None:
    some = {name: truth[name] for name in sorted(truth)[10:20:3]}
    few = ask(some, 3, 4)
    assert few == [item for item in ask(truth, 3, 4) if item.video in some]
    assert set(few) < set(ask(some, 5, 7))


def test_another_seed_or_name_asks_otherwise(truth: dict[str, list[Shown]]) -> None:
    assert ask(truth, 3, 3) == ask(truth, 3, 3)
    assert ask(truth, 3, 3) != ask(truth, 3, 3, seed=1)
    twins = ask({"a.mp4": TINY, "b.mp4": TINY}, 3, 3)
    assert [i.question for i in twins[:6]] != [i.question for i in twins[6:]]


def test_kinds_and_answers_are_evenly_spread(truth: dict[str, list[Shown]]) -> None:
    items = ask(truth, 3, 5)
    kinds = Counter(item.kind for item in items)
    assert set(kinds.values()) == {60} and set(kinds) == {*LOCALIZED_KINDS, *COMPREHENSIVE_KINDS}
    single = Counter(item.kind for item in ask(truth, 1, 1))
    assert all(single[kind] >= 10 for kind in LOCALIZED_KINDS)
    assert all(single[kind] >= 5 for kind in COMPREHENSIVE_KINDS)
    named_first = [
        item.answer.split()[1] == item.question.split("the ")[1].split()[0]
        for item in items
        if item.kind == "order"
    ]
    assert 0.3 < np.mean(named_first) < 0.7
    asked_about = Counter(item.id.split("/")[2] for item in items if item.kind == "shape")
    assert len(asked_about) == 8


def test_too_many_questions_are_refused() -> None:
    with pytest.raises(InputError, match="tiny.mp4: 10 localized .* allow 9"):
        ask({"tiny.mp4": TINY}, 10, 0)
    one_event = {"one.mp4": TINY[:1]}
    assert {item.kind for item in ask(one_event, 0, 2)} == {"first", "last"}
    with pytest.raises(InputError, match="lower comprehensive_per_video"):
        ask(one_event, 0, 3)
