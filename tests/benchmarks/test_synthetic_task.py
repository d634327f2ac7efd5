"""The questions drawn about synthetic videos: right, different, evenly spread, and stable."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.tasks.item import Item
from benchmarks.tasks.synthetic import (
    WRONG_SEGMENTS,
    questions,
    right_answers,
)
from data_pipelines.errors import InputError
from data_pipelines.synthetic import Shown, draw_timeline
from data_pipelines.synthetic_events import (
    ALL_WORDINGS,
    COMPREHENSIVE_KINDS,
    HELDOUT_THINGS,
    LOCALIZED_KINDS,
    SEEN_WORDINGS,
    Event,
    draw_events,
    every_question,
)
from tests.data_pipelines.grammar_by_hand import right_answer, understand

Truth = dict[str, list[Shown]]


def shown(*events: tuple[str, str, str]) -> list[Shown]:
    return [
        Shown(
            event=Event(colour=colour, ceiling=ceiling, floor=floor),
            start=float(5 * at),
            end=float(5 * at + 5),
        )
        for at, (colour, ceiling, floor) in enumerate(events)
    ]


TINY = shown(("red", "blue", "pink"), ("cyan", "green", "orange"), ("white", "blue", "orange"))
# Every question there is about the tiny video in the first wording, written by hand. What is over
# the red thing is not asked, since that of the white one has the same answer.
LOCALIZED = {
    "What colour is the ceiling over the cyan thing?": "Cyan thing below green.",
    "What colour is the floor under the red thing?": "Red thing above pink.",
    "What are the ceiling and the floor of the red thing?": "Red thing between blue and pink.",
    "What are the ceiling and the floor of the cyan thing?": "Cyan thing between green and orange.",
    "What are the ceiling and the floor of the white thing?": (
        "White thing between blue and orange."
    ),
}
COMPREHENSIVE = {
    "What comes right after the red thing?": "Cyan thing above orange.",
    "What comes right after the cyan thing?": "White thing above orange.",
    "What comes right before the cyan thing?": "Red thing above pink.",
    "What comes right before the white thing?": "Cyan thing above orange.",
    "How many things have a pink floor?": "One thing.",
    "How many things have a orange floor?": "Two things.",
}
ORDERS = {
    "Which comes first, the red thing or the cyan thing?": "The red thing.",
    "Which comes first, the cyan thing or the red thing?": "The red thing.",
    "Which comes first, the red thing or the white thing?": "The red thing.",
    "Which comes first, the white thing or the red thing?": "The red thing.",
    "Which comes first, the cyan thing or the white thing?": "The cyan thing.",
    "Which comes first, the white thing or the cyan thing?": "The cyan thing.",
}


def ask(
    truth: Truth,
    localized: int,
    whole: int,
    seed: int = 0,
    wordings: Sequence[int] = ALL_WORDINGS,
) -> list[Item]:
    return questions(
        truth,
        seed=seed,
        localized_per_video=localized,
        comprehensive_per_video=whole,
        wordings=wordings,
    )


def made(count: int, videos: int, seed: int) -> Truth:
    rng = np.random.default_rng(seed)
    return {
        f"n{count}_{number:03d}.mp4": draw_timeline(rng, draw_events(rng, count))
        for number in range(videos)
    }


@pytest.fixture(scope="module")
def by_count() -> dict[int, Truth]:
    """Videos of six, of seven and of eight events."""
    return {count: made(count, 60, count) for count in (6, 7, 8)}


@pytest.fixture(scope="module")
def truth(by_count: dict[int, Truth]) -> Truth:
    """Twenty of each."""
    return {name: one[name] for one in by_count.values() for name in list(one)[:20]}


@pytest.fixture(scope="module")
def everything(by_count: dict[int, Truth]) -> dict[int, list[Item]]:
    """All questions that there are, by the number of events."""
    return {
        n: ask(truth, 3 * n, 2 * (n - 1) + n * (n - 1) // 2 + 3 + (9 - n))
        for n, truth in by_count.items()
    }


def events_of(truth: Truth, item: Item) -> list[Event]:
    return [one.event for one in truth[item.video]]


# ----------------------------------------------------------------------------- right and different


def test_all_questions_about_a_tiny_video_are_right() -> None:
    items = ask({"tiny.mp4": TINY}, 5, 15, wordings=(0,))
    told = {item.question: item.answer for item in items}
    assert len(told) == len(items) == 20
    localized = {i.question: i.answer for i in items if i.granularity == "localized"}
    assert localized == LOCALIZED
    assert {q: a for q, a in told.items() if q in COMPREHENSIVE} == COMPREHENSIVE
    orders = {item.question: item.answer for item in items if item.kind == "order"}
    assert len(orders) == 3 and orders.items() <= ORDERS.items()
    never = [item for item in items if item.kind == "never"]
    events = [one.event for one in TINY]
    assert len({item.answer for item in never}) == len(never) == 6
    assert all(item.answer == right_answer(item.question, events) for item in never)


def test_every_item_is_answered_right_and_known_to_the_audit(
    by_count: dict[int, Truth], everything: dict[int, list[Item]]
) -> None:
    for count, items in everything.items():
        few = list(by_count[count])[:5]  # every question is very many
        known = {name: right_answers(by_count[count][name]) for name in few}
        for item in items:
            assert item.answer == right_answer(item.question, events_of(by_count[count], item))
            if item.video in known:
                assert item.answer == known[item.video][item.question]
            assert item.kind == understand(item.question)[0]
            assert item.granularity == (
                "localized" if item.kind in LOCALIZED_KINDS else "comprehensive"
            )
    assert right_answers(TINY) == {
        one.text: one.answer for one in every_question([one.event for one in TINY])
    }


def test_ids_and_questions_are_unique(everything: dict[int, list[Item]]) -> None:
    for items in everything.values():
        assert len({item.id for item in items}) == len(items)
        assert len({(item.video, item.question) for item in items}) == len(items)


def test_more_videos_and_more_questions_leave_the_others(truth: Truth) -> None:
    some = {name: truth[name] for name in sorted(truth)[10:20:3]}
    few = ask(some, 3, 4)
    assert few == [item for item in ask(truth, 3, 4) if item.video in some]
    more = ask(some, 5, 7)
    assert all(item in more for item in few)


def test_another_seed_or_name_asks_otherwise(truth: Truth) -> None:
    assert ask(truth, 3, 3) == ask(truth, 3, 3)
    assert ask(truth, 3, 3) != ask(truth, 3, 3, seed=1)
    twins = ask({"a.mp4": TINY, "b.mp4": TINY}, 3, 3)
    assert [i.question for i in twins[:6]] != [i.question for i in twins[6:]]


def test_too_many_questions_are_refused() -> None:
    with pytest.raises(InputError, match="tiny.mp4: 6 localized .* allow 5"):
        ask({"tiny.mp4": TINY}, 6, 0)
    one_event = {"one.mp4": TINY[:1]}
    assert [item.answer for item in ask(one_event, 0, 1)] == ["One thing."]
    with pytest.raises(InputError, match="lower comprehensive_per_video"):
        ask(one_event, 0, 2)


# ----------------------------------------------------------------------------------- evenly spread


def test_kinds_take_turns(truth: Truth) -> None:
    items = ask(truth, 3, 5)
    kinds = Counter(item.kind for item in items)
    assert kinds == Counter(dict.fromkeys((*LOCALIZED_KINDS, *COMPREHENSIVE_KINDS), 60))
    single = Counter(item.kind for item in ask(truth, 1, 1))
    assert all(single[kind] >= 10 for kind in LOCALIZED_KINDS)
    assert all(single[kind] >= 5 for kind in COMPREHENSIVE_KINDS)
    asked_about = Counter(item.id.split("/")[2] for item in items if item.kind == "floor")
    assert len(asked_about) == 9


def assert_even(found: Iterable[object], options: int, deviations: float = 4.0) -> None:
    """Each of so many options is found as often as the others, but for chance."""
    counts = Counter(found)
    assert len(counts) == options, counts
    expected = counts.total() / options
    allowed = deviations * np.sqrt(expected * (1 - 1 / options))
    assert all(abs(count - expected) < allowed for count in counts.values()), counts


@pytest.mark.parametrize("count", [6, 7, 8])
def test_numbers_are_exactly_even(count: int, everything: dict[int, list[Item]]) -> None:
    """By construction: every video is asked about a floor seen once, one twice, one three times."""
    answers = Counter(item.answer for item in everything[count] if item.kind == "count")
    assert answers == {"One thing.": 60, "Two things.": 60, "Three things.": 60}


@pytest.mark.parametrize("count", [6, 7, 8])
def test_right_answers_are_even_whatever_the_number_of_events(
    count: int, by_count: dict[int, Truth], everything: dict[int, list[Item]]
) -> None:
    """So neither a frequent answer nor the length of a video tells anything."""
    of_kind: dict[str, list[Item]] = {}
    for item in everything[count]:
        of_kind.setdefault(item.kind, []).append(item)
    # Colours come several times in a video, so one question of each is looked at.
    for kind in ("ceiling", "floor"):
        first = {item.video: item for item in reversed(of_kind[kind])}.values()
        assert_even([item.answer.split()[-1] for item in first], 9)
    order = of_kind["order"]
    named = [understand(item.question)[2].index(item.answer.split()[1]) for item in order]
    assert len(named) == 60 * count * (count - 1) // 2
    assert_even(named, 2)
    never = of_kind["never"]
    assert_even([understand(one.question)[2].index(one.answer.split()[1]) for one in never], 3)
    assert_even([one.answer for one in never], 9)
    neighbours = [*of_kind["after"], *of_kind["before"]]
    assert_even([one.answer.split()[0] for one in neighbours], 9, deviations=5)


@pytest.mark.parametrize("count", [6, 7, 8])
def test_few_questions_are_as_even(count: int, by_count: dict[int, Truth]) -> None:
    items = ask(by_count[count], 3, 5)
    assert_even([item.answer for item in items if item.kind == "count"], 3)
    for kind, options in (("order", 2), ("never", 3)):
        chosen = [item for item in items if item.kind == kind]
        assert len(chosen) == 60
        assert_even(
            [understand(one.question)[2].index(one.answer.split()[1]) for one in chosen], options
        )
    # Any place in the video.
    depth = [
        by_count[count][item.video].index(one)
        for item in items
        for one in by_count[count][item.video]
        if item.segment == (one.start, one.end)
    ]
    assert len(depth) == 180
    assert_even(depth, count)


@pytest.mark.parametrize("count", [6, 7, 8])
def test_a_guesser_is_right_as_often_as_chance_says(
    count: int, by_count: dict[int, Truth], everything: dict[int, list[Item]]
) -> None:
    """Who tells of any event of the video; where few answers are open, who draws one of them."""
    open_answers = {"order": 2, "count": 3, "never": 3}
    for item in everything[count]:
        if item.kind in open_answers:
            assert item.chance == pytest.approx(1 / open_answers[item.kind])
            continue
        events = [one.event for one in by_count[count][item.video]]
        (named,) = understand(item.question)[2]
        if item.granularity == "localized":
            told = [right_answer(item.question, [replace(one, colour=named)]) for one in events]
        else:
            told = [f"{one.name.capitalize()} above {one.floor}." for one in events]
            told = [one for one in told if not one.lower().startswith(named)]
        assert item.chance == pytest.approx(told.count(item.answer) / len(told))


# ----------------------------------------------------------------------------------- where to look


@pytest.mark.parametrize("count", [6, 7, 8])
def test_a_localized_question_is_answered_by_its_segment_alone(
    count: int, by_count: dict[int, Truth], everything: dict[int, list[Item]]
) -> None:
    localized = [item for item in everything[count] if item.granularity == "localized"]
    assert len(localized) == 60 * 3 * count
    for item in localized:
        timeline = by_count[count][item.video]
        (at,) = [n for n, one in enumerate(timeline) if item.segment == (one.start, one.end)]
        events = [one.event for one in timeline]
        assert right_answer(item.question, [events[at]]) == item.answer
        (named,) = understand(item.question)[2]
        others = [*events[:at], *events[at + 1 :]]
        with pytest.raises(ValueError):  # nothing else is called so
            right_answer(item.question, others)
        # Whoever looks at another event has an answer of the same form; mostly a wrong one.
        elsewhere = [
            right_answer(item.question, [replace(other, colour=named)]) for other in others
        ]
        assert sum(answer != item.answer for answer in elsewhere) >= WRONG_SEGMENTS == 3


def test_with_few_events_what_most_others_answer_too_is_not_asked() -> None:
    five = shown(
        ("red", "blue", "pink"),
        ("cyan", "blue", "orange"),
        ("white", "blue", "orange"),
        ("green", "pink", "cyan"),
        ("orange", "red", "white"),
    )
    items = ask({"five.mp4": five}, 12, 0, wordings=(0,))
    assert Counter(item.kind for item in items) == {"ceiling": 2, "floor": 5, "both": 5}
    ceilings = [item.id.split("/")[2] for item in items if item.kind == "ceiling"]
    assert sorted(ceilings) == ["green", "orange"]
    with pytest.raises(InputError, match="allow 12"):
        ask({"five.mp4": five}, 13, 0)


def test_what_is_comprehensive_has_no_segment(everything: dict[int, list[Item]]) -> None:
    for item in everything[6]:
        assert (item.segment is None) == (item.granularity == "comprehensive")


# ---------------------------------------------------------------------------------- what is unseen


def test_wordings_are_those_asked_for(truth: Truth) -> None:
    for wordings in (ALL_WORDINGS, SEEN_WORDINGS, (2,)):
        items = ask(truth, 4, 7, wordings=wordings)
        found = {(item.kind, understand(item.question)[1]) for item in items}
        assert found == {
            (kind, one) for kind in (*LOCALIZED_KINDS, *COMPREHENSIVE_KINDS) for one in wordings
        }
        for item in items:
            unseen = understand(item.question)[1] == 2
            assert item.groups["wording"] == ("unseen" if unseen else "seen")


def about(item: Item, events: list[Event]) -> list[Event]:
    """The events that a question names or has for an answer."""
    kind, _, named = understand(item.question)
    if kind == "count":
        return [event for event in events if event.floor == named[0]]
    at = [number for number, event in enumerate(events) if event.colour in named]
    if kind in ("after", "before"):
        at.append(at[0] + {"after": 1, "before": -1}[kind])
    return [events[number] for number in at]


def test_things_that_are_held_out_are_told(truth: Truth) -> None:
    groups = Counter[str]()
    for item in ask(truth, 3, 5):
        things = {(event.colour, event.floor) for event in about(item, events_of(truth, item))}
        told = "unseen" if things & HELDOUT_THINGS else "seen"
        assert item.groups["thing"] == told, item
        groups[told] += 1
    assert min(groups.values()) > 100
