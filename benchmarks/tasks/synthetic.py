"""Questions about synthetic videos, made from what is known to be shown in them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from benchmarks.tasks.item import Item
from data_pipelines.errors import InputError
from data_pipelines.synthetic import Shown
from data_pipelines.synthetic_events import (
    COLOURS,
    COMPREHENSIVE_KINDS,
    COUNTS,
    LOCALIZED_KINDS,
    MOTIONS,
    SHAPES,
    Event,
    Question,
    comprehensive_question,
    localized_question,
)

# What a guesser is right by who knows the grammar: one of the answers the question leaves open.
CHANCE = {
    "shape": 1 / len(SHAPES),
    "motion": 1 / len(MOTIONS),
    "count": 1 / len(COUNTS),
    "after": 1 / (len(COLOURS) - 1),
    "before": 1 / (len(COLOURS) - 1),
    "order": 1 / 2,
    "first": 1 / len(COLOURS),
    "last": 1 / len(COLOURS),
}

Segment = tuple[float, float] | None
Pools = Mapping[str, Sequence[tuple[str, Question, Segment]]]


def questions(
    truth: Mapping[str, Sequence[Shown]],
    *,
    seed: int,
    localized_per_video: int,
    comprehensive_per_video: int,
) -> list[Item]:
    """Draws questions about each video, its kinds in turn and none twice.

    What is asked of a video follows from its name, its events and `seed` alone, so that more
    videos leave the questions of the others as they are; a higher number adds questions.

    Args:
      truth: file name to what is shown, in order, as `read_truth` gives it.
      seed: another seed draws other questions.
      localized_per_video: questions about one event, any of the video's.
      comprehensive_per_video: questions about the order of the events.

    Raises:
      InputError: a video has too few events for so many different questions.
    """
    items: list[Item] = []
    for video, timeline in truth.items():
        events = [shown.event for shown in timeline]
        items += _draw(video, "localized", _localized(timeline), localized_per_video, seed)
        items += _draw(
            video,
            "comprehensive",
            _comprehensive(events, seed, video),
            comprehensive_per_video,
            seed,
        )
    return items


def _localized(timeline: Sequence[Shown]) -> Pools:
    """Every localized question about the events by kind, each with a name for it, and when."""
    return {
        kind: [
            (one.event.colour, localized_question(one.event, kind), (one.start, one.end))
            for one in timeline
        ]
        for kind in LOCALIZED_KINDS
    }


def _comprehensive(events: Sequence[Event], seed: int, video: str) -> Pools:
    """Every comprehensive question; of the two ways to ask for an order, one by chance."""
    rng = _rng(seed, "order", video)
    last = len(events) - 1
    asked: dict[str, list[tuple[int, int]]] = {
        "after": [(at, 0) for at in range(last)],
        "before": [(at, 0) for at in range(1, last + 1)],
        "order": [
            pair if rng.random() < 0.5 else pair[::-1] for pair in combinations(range(last + 1), 2)
        ],
        "first": [(0, 0)],
        "last": [(last, 0)],
    }
    pools: dict[str, list[tuple[str, Question, Segment]]] = {}
    for kind in COMPREHENSIVE_KINDS:
        pools[kind] = []
        for at, other in asked[kind]:
            names = {
                "order": f"{events[at].colour}-{events[other].colour}",
                "first": "",
                "last": "",
            }
            question = comprehensive_question(events, kind, at, other)
            pools[kind].append((names.get(kind, events[at].colour), question, None))
    return pools


def _draw(
    video: str,
    granularity: Literal["localized", "comprehensive"],
    pools: Pools,
    count: int,
    seed: int,
) -> list[Item]:
    """`count` items, going round the kinds from one drawn by chance."""
    there = sum(len(pool) for pool in pools.values())
    if count > there:
        raise InputError(
            f"{video}: {count} {granularity} questions asked for, its events allow {there}; "
            f"lower {granularity}_per_video"
        )
    rng = _rng(seed, granularity, video)
    # Shuffled whole before any is taken: a higher `count` must not change the first ones.
    left = {
        kind: [pools[kind][i] for i in rng.permutation(len(pools[kind]))]
        for kind in rng.permutation(sorted(pools)).tolist()
    }
    items: list[Item] = []
    while len(items) < count:
        for kind, pool in left.items():
            if pool and len(items) < count:
                about, question, segment = pool.pop()
                items.append(
                    Item(
                        id="/".join(part for part in (video, kind, about) if part),
                        video=video,
                        granularity=granularity,
                        kind=kind,
                        question=question.text,
                        answer=question.answer,
                        chance=CHANCE[kind],
                        segment=segment,
                    )
                )
    return items


def _rng(seed: int, what: str, video: str) -> np.random.Generator:
    return np.random.default_rng([seed, *f"{what}/{video}".encode()])
