"""Questions from captions: asked where the captions give one answer, and that is the right one."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.curation.filters import reason_to_drop
from data_pipelines.curation.judge import Judged, NoJudge
from data_pipelines.curation.questions import Candidate, RuleQuestions, TimeQuestions
from data_pipelines.synthetic_events import (
    COLOURS,
    COMPREHENSIVE_KINDS,
    COUNTS,
    DESCRIBE,
    LOCALIZED_KINDS,
    MOTIONS,
    SHAPES,
    Event,
    caption,
    localized_question,
)

MAKER = RuleQuestions()
RED = Event(shape="ring", colour="red", motion="left", count="one")
CYAN = Event(shape="cross", colour="cyan", motion="up", count="two")
WHITE = Event(shape="ring", colour="white", motion="down", count="three")
GREEN = Event(shape="square", colour="green", motion="right", count="two")
# The red shapes told of in every other way.
OTHERWISE = Event(shape="cross", colour="red", motion="up", count="two")
SEEDS = st.integers(0, 2**32)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def segments_of(captions: Sequence[str]) -> list[tuple[float, float]]:
    return [(8.0 * number, 8.0 * number + 8) for number in range(len(captions))]


def localized(*told: Sequence[Event] | str, seed: int = 0) -> list[Candidate]:
    captions = [one if isinstance(one, str) else caption(one) for one in told]
    return MAKER.localized(captions, segments_of(captions), rng_of(seed))


def comprehensive(*told: Sequence[Event] | str, count: int = 8, seed: int = 0) -> list[Candidate]:
    captions = [one if isinstance(one, str) else caption(one) for one in told]
    return MAKER.comprehensive(captions, count, rng_of(seed))


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Event], list[str]]:
    """Events, and captions of segments: an event that runs over a border is told of twice."""
    events = [
        Event(
            shape=draw(st.sampled_from(SHAPES)),
            colour=colour,
            motion=draw(st.sampled_from(MOTIONS)),
            count=draw(st.sampled_from(COUNTS)),
        )
        for colour in draw(st.permutations(COLOURS))[: draw(st.integers(1, len(COLOURS)))]
    ]
    captions, at = [], 0
    while at < len(events):
        end = min(len(events), at + draw(st.integers(1, 3)))
        captions.append(caption(events[at:end]))
        at = end - 1 if end < len(events) and end - at > 1 and draw(st.booleans()) else end
    return events, captions


# -------------------------------------------------------------------------------------- localized


@given(stories(), SEEDS)
def test_a_localized_question_is_about_its_segment(
    story: tuple[list[Event], list[str]], seed: int
) -> None:
    events, captions = story
    candidates = MAKER.localized(captions, segments_of(captions), rng_of(seed))
    assert [candidate.segment for candidate in candidates] == list(range(len(captions)))
    for candidate in candidates:
        assert candidate.granularity == "localized" and not candidate.ambiguous
        right = {
            localized_question(event, candidate.kind).text: localized_question(
                event, candidate.kind
            ).answer
            for event in events
            if caption([event]) in captions[candidate.segment or 0]
        }
        assert right[candidate.question] == candidate.expected
    assert MAKER.localized(captions, segments_of(captions), rng_of(seed)) == candidates


def test_all_kinds_and_all_events_of_a_segment_are_asked_about() -> None:
    asked = [localized([RED, CYAN], seed=seed)[0] for seed in range(60)]
    assert {one.kind for one in asked} == set(LOCALIZED_KINDS)
    names = {"red shapes", "cyan shapes"}
    assert {name for one in asked for name in names if name in one.question} == names
    assert MAKER.describe == DESCRIBE


@pytest.mark.parametrize(
    "bad", ["", "A ring, I think.", "One red ring moves", "One red ring moves left. Two"]
)
def test_an_unreadable_caption_is_not_asked_about(bad: str) -> None:
    candidates = localized([RED], bad, [WHITE], bad)
    assert [candidate.segment for candidate in candidates] == [0, 2]
    assert localized(bad, bad) == []


def test_what_is_told_otherwise_elsewhere_is_ambiguous() -> None:
    marks = [one.ambiguous for one in localized([RED], [CYAN], [OTHERWISE], [WHITE])]
    assert "segment 2" in marks[0] and "segment 0" in marks[2]
    assert "red shapes" in marks[0] and marks[1] == marks[3] == ""


def test_what_is_told_alike_elsewhere_is_not_ambiguous() -> None:
    assert [one.ambiguous for one in localized([RED], [RED], [CYAN], [RED])] == [""] * 4


def test_what_a_caption_tells_of_twice_is_ambiguous() -> None:
    for seed in range(20):
        (candidate,) = localized([RED, CYAN, OTHERWISE], seed=seed)
        assert bool(candidate.ambiguous) == ("red shapes" in candidate.question)


# ---------------------------------------------------------------------------------- comprehensive


def right_answer(question: str, nouns: list[str]) -> str:
    """Answered anew from the order of the nouns, without the grammar's own code."""
    if question == "What comes first in the video?":
        return f"The {nouns[0]} come first."
    if question == "What comes last in the video?":
        return f"The {nouns[-1]} come last."
    if beside := re.fullmatch(r"What comes right (after|before) the (\w+ shapes)\?", question):
        side, noun = beside.groups()
        other = nouns[nouns.index(noun) + {"after": 1, "before": -1}[side]]
        assert not (side == "before" and noun == nouns[0])
        return f"The {other} come right {side} the {noun}."
    order = re.fullmatch(r"Which come first, the (\w+ shapes) or the (\w+ shapes)\?", question)
    assert order
    one, other = order.groups()
    assert one != other
    return f"The {min(one, other, key=nouns.index)} come first."


@given(stories(), st.integers(0, 12), SEEDS)
def test_comprehensive_questions_are_answered_from_the_events(
    story: tuple[list[Event], list[str]], count: int, seed: int
) -> None:
    events, captions = story
    candidates = MAKER.comprehensive(captions, count, rng_of(seed))
    nouns = [event.name for event in events]
    for candidate in candidates:
        assert candidate.granularity == "comprehensive" and candidate.segment is None
        assert not candidate.ambiguous
        assert candidate.expected == right_answer(candidate.question, nouns)
    texts = [candidate.question for candidate in candidates]
    assert len(set(texts)) == len(texts) <= count
    if count and len(events) >= 3:
        assert texts
    else:
        assert not texts
    assert MAKER.comprehensive(captions, count, rng_of(seed)) == candidates


def test_all_comprehensive_kinds_are_asked() -> None:
    asked = [one for seed in range(30) for one in comprehensive([RED, CYAN], [WHITE], seed=seed)]
    assert {one.kind for one in asked} == set(COMPREHENSIVE_KINDS)
    assert len(comprehensive([RED, CYAN], [WHITE, GREEN], count=5)) == 5


@pytest.mark.parametrize(
    "told",
    [
        ([RED], [CYAN], [RED], [WHITE]),
        ([RED, CYAN, RED], [WHITE]),
        ([RED, CYAN], [WHITE], [CYAN, GREEN]),
        ([RED, CYAN], [RED, CYAN], [WHITE]),
        ([RED], [CYAN], "It goes on.", [WHITE], [GREEN]),
        ("", [RED, CYAN], [WHITE]),
        ([RED, CYAN], [WHITE], "Two"),
        ([RED], [CYAN]),
        (),
    ],
    ids=str,
)
def test_nothing_is_asked_about_a_story_that_is_not_clear(told: tuple) -> None:
    assert [one for seed in range(10) for one in comprehensive(*told, seed=seed)] == []


def test_an_event_over_a_border_is_one_event() -> None:
    for seed in range(20):
        for candidate in comprehensive([RED, CYAN], [CYAN, WHITE], [WHITE], seed=seed):
            nouns = ["red shapes", "cyan shapes", "white shapes"]
            assert candidate.expected == right_answer(candidate.question, nouns)


# ------------------------------------------------------------------------------------ any video


def test_when_something_is_shown_can_be_asked_of_any_video() -> None:
    maker, captions = TimeQuestions(), ["A man walks.", "", "A dog."]
    candidates = maker.localized(captions, segments_of(captions), rng_of(0))
    assert [candidate.segment for candidate in candidates] == [0, 1, 2]
    assert "from 8 to 16 seconds" in candidates[1].question
    assert len({candidate.question for candidate in candidates}) == 3
    assert [c.segment for c in maker.comprehensive(captions, 4, rng_of(0))] == [None]
    assert maker.comprehensive(captions, 0, rng_of(0)) == []


def test_nobody_judges_and_the_pair_says_so() -> None:
    (story,) = TimeQuestions().comprehensive([], 1, rng_of(0))
    judged = Judged(candidate=story, chosen="A dog.", rejected="A cat.")
    (verdict,) = NoJudge().judge_all([judged])
    assert reason_to_drop("A dog.", "A cat.", verdict) is None
    assert "nobody judged" in verdict.why
    dropped = reason_to_drop("A dog.", "A dog.", verdict)
    assert dropped is not None and dropped[0] == "identical"
