"""Questions about synthetic videos, made from what is known to be shown in them.

A localized question is about a thing named by its colour, and its answer recurs: at least
`WRONG_SEGMENTS` other segments hold a wrong answer of the same type. A comprehensive question needs
several segments. Right answers are spread evenly over what the question leaves open, whatever the
number of events.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise

import numpy as np

from benchmarks.scoring import is_correct
from benchmarks.tasks.item import Granularity, Item
from data_pipelines.errors import InputError
from data_pipelines.synthetic import Shown
from data_pipelines.synthetic_events import (
    ALL_WORDINGS,
    COMPREHENSIVE_KINDS,
    HELDOUT_THINGS,
    LOCALIZED_KINDS,
    SEEN_WORDINGS,
    Event,
    Question,
    absent_colours,
    count_question,
    every_question,
    localized_question,
    neighbour_question,
    never_question,
    order_question,
)

WRONG_SEGMENTS = 3

# What a guesser is right by where the question leaves few answers open. Elsewhere it is one who has
# seen the video and tells of any of its events.
CHANCE = {"order": 1 / 2, "count": 1 / 3, "never": 1 / 3}


@dataclass(frozen=True, kw_only=True)
class _Possible:
    """A question that may be drawn: its name, how it is asked in a wording, what it is about, and
    how often a guess is right.
    """

    name: str
    ask: Callable[[int], Question]
    events: tuple[Event, ...]
    chance: float
    segment: tuple[float, float] | None = None


Pools = Mapping[str, Sequence[_Possible]]


def questions(
    truth: Mapping[str, Sequence[Shown]],
    *,
    seed: int,
    localized_per_video: int,
    comprehensive_per_video: int,
    wordings: Sequence[int] = ALL_WORDINGS,
) -> list[Item]:
    """Draws questions about each video, its kinds in turn and none twice.

    What is asked of a video follows from its name, its events and `seed` alone, so that more
    videos leave the questions of the others as they are; a higher number adds questions.

    Args:
      truth: file name to what is shown, in order, as `read_truth` gives it.
      seed: another seed draws other questions.
      localized_per_video: questions about one event, any of the video's.
      comprehensive_per_video: questions about several events.
      wordings: numbers of those that are used.

    Raises:
      InputError: a video has too few events for so many different questions.
    """
    items: list[Item] = []
    for video, timeline in truth.items():
        events = [shown.event for shown in timeline]
        drawn: dict[Granularity, tuple[Pools, int]] = {
            "localized": (_localized(timeline), localized_per_video),
            "comprehensive": (_comprehensive(events, seed, video), comprehensive_per_video),
        }
        for granularity, (pools, count) in drawn.items():
            items += _draw(video, granularity, pools, count, seed, wordings)
    return items


def right_answers(timeline: Sequence[Shown]) -> dict[str, str]:
    """Every question of the grammar that a video has an answer to, and that answer."""
    return {one.text: one.answer for one in every_question([shown.event for shown in timeline])}


def where_answers_are_from(
    items: Sequence[Item], said: Sequence[str], truth: Mapping[str, Sequence[Shown]]
) -> dict[str, float]:
    """A model's shortcut: whose answer it gives to localized questions about earlier events.

    Args:
      items: what was asked; all but localized ones about an event before the last are passed over.
      said: to each.
      truth: file name to what is shown.

    Returns:
      shares of such answers that are right; that are wrong and would be right of the last event; of
      the first; of another one; of none. They add up to 1.
    """
    found = Counter[str]()
    for item, text in zip(items, said, strict=True):
        events = [shown.event for shown in truth[item.video]]
        if item.segment is None or item.segment[0] == truth[item.video][-1].start:
            continue
        colour = item.id.rsplit("/", 1)[1]
        # An event's answer may be given under the name that was asked for, or under its own.
        told = [
            any(
                is_correct(text, localized_question(named, item.kind).answer)
                for named in (event, replace(event, colour=colour))
            )
            for event in events
        ]
        if is_correct(text, item.answer):
            found["right"] += 1
        elif told[-1]:
            found["of the last event"] += 1
        elif told[0]:
            found["of the first event"] += 1
        else:
            found["of another event" if any(told) else "of none"] += 1
    names = ("right", "of the last event", "of the first event", "of another event", "of none")
    return {name: found[name] / max(found.total(), 1) for name in names}


def _localized(timeline: Sequence[Shown]) -> Pools:
    """Localized questions about the events, by kind."""
    events = [shown.event for shown in timeline]
    fewest = min(WRONG_SEGMENTS, len(events) - 1)
    return {
        kind: [
            _Possible(
                name=one.event.colour,
                ask=partial(localized_question, one.event, kind),
                events=(one.event,),
                chance=1 - _wrong_segments(one.event, events, kind) / len(events),
                segment=(one.start, one.end),
            )
            for one in timeline
            if _wrong_segments(one.event, events, kind) >= fewest
        ]
        for kind in LOCALIZED_KINDS
    }


def _wrong_segments(event: Event, events: Sequence[Event], kind: str) -> int:
    """Events that hold another answer to the question about this one."""

    def told(one: Event) -> tuple[str, ...]:
        both = {"ceiling": one.ceiling, "floor": one.floor}
        return (both[kind],) if kind in both else tuple(both.values())

    return sum(told(one) != told(event) for one in events)


def _comprehensive(events: Sequence[Event], seed: int, video: str) -> Pools:
    """Comprehensive questions by kind; what is left open in them is drawn by chance."""
    rng = _rng(seed, "comprehensive pool", video)
    pools: dict[str, list[_Possible]] = {kind: [] for kind in COMPREHENSIVE_KINDS}
    for at, (one, following) in enumerate(pairwise(events)):
        for kind, asked in (("after", at), ("before", at + 1)):
            ask = partial(neighbour_question, events, kind, asked)
            named = events[asked].colour
            pools[kind].append(
                _Possible(
                    name=named, ask=ask, events=(one, following), chance=1 / (len(events) - 1)
                )
            )
    for pair in combinations(range(len(events)), 2):
        at, other = pair if rng.random() < 0.5 else pair[::-1]
        ask, two = partial(order_question, events, at, other), (events[at], events[other])
        pools["order"].append(
            _Possible(name=_names(two), ask=ask, events=two, chance=CHANCE["order"])
        )
    # One floor for each number of times, so that no number is more frequent.
    times = Counter(event.floor for event in events)
    for often in sorted(set(times.values())):
        floor = str(rng.choice([name for name, number in times.items() if number == often]))
        found = tuple(event for event in events if event.floor == floor)
        ask = partial(count_question, events, floor)
        pools["count"].append(_Possible(name=floor, ask=ask, events=found, chance=CHANCE["count"]))
    for missing in absent_colours(events) if len(events) > 1 else []:
        one, other_one = (events[at] for at in rng.choice(len(events), size=2, replace=False))
        options = [str(name) for name in rng.permutation([missing, one.colour, other_one.colour])]
        ask = partial(never_question, events, options)
        named = "-".join(options)
        pools["never"].append(
            _Possible(name=named, ask=ask, events=(one, other_one), chance=CHANCE["never"])
        )
    return pools


def _names(events: Sequence[Event]) -> str:
    return "-".join(event.colour for event in events)


def _draw(
    video: str,
    granularity: Granularity,
    pools: Pools,
    count: int,
    seed: int,
    wordings: Sequence[int],
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
                possible = pool.pop()
                question = possible.ask(int(rng.choice(wordings)))
                items.append(
                    Item(
                        id=f"{video}/{kind}/{possible.name}",
                        video=video,
                        granularity=granularity,
                        kind=kind,
                        question=question.text,
                        answer=question.answer,
                        chance=possible.chance,
                        segment=possible.segment,
                        groups=_groups(question, possible.events),
                    )
                )
    return items


def _groups(question: Question, events: Sequence[Event]) -> dict[str, str]:
    """Whether wording and things of the question may be in training videos, or never are."""
    things = [(event.colour, event.floor) for event in events]
    return {
        "wording": "seen" if question.wording in SEEN_WORDINGS else "unseen",
        "thing": "unseen" if HELDOUT_THINGS.intersection(things) else "seen",
    }


def _rng(seed: int, what: str, video: str) -> np.random.Generator:
    return np.random.default_rng([seed, *f"{what}/{video}".encode()])
