"""Questions from captions: asked where the captions give one answer, and that is the right one."""

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
    DESCRIBE,
    LOCALIZED_KINDS,
    MOST_EVENTS,
    SEEN_WORDINGS,
    Event,
    caption,
    draw_events,
    every_question,
)
from tests.data_pipelines.grammar_by_hand import needed, right_answer, understand

MAKER = RuleQuestions()
RED = Event(colour="red", ceiling="blue", floor="pink")
CYAN = Event(colour="cyan", ceiling="green", floor="orange")
WHITE = Event(colour="white", ceiling="blue", floor="orange")
GREEN = Event(colour="green", ceiling="white", floor="pink")
# The red thing told of in every other way.
OTHERWISE = Event(colour="red", ceiling="green", floor="orange")
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
    others = [draw(st.permutations(COLOURS)) for _ in COLOURS]
    colours = draw(st.permutations(COLOURS))[: draw(st.integers(1, len(COLOURS)))]
    events = []
    for colour, names in zip(colours, others, strict=False):
        ceiling, floor = [name for name in names if name != colour][:2]
        events.append(Event(colour=colour, ceiling=ceiling, floor=floor))
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
        kind, wording, _ = understand(candidate.question)
        assert kind == candidate.kind and kind in LOCALIZED_KINDS and wording in SEEN_WORDINGS
        (event,) = needed(candidate.question, events)
        assert caption([event]) in captions[candidate.segment or 0]
        assert candidate.expected == right_answer(candidate.question, events)
    assert MAKER.localized(captions, segments_of(captions), rng_of(seed)) == candidates


def test_all_kinds_and_all_events_of_a_segment_are_asked_about() -> None:
    asked = [localized([RED, CYAN], seed=seed)[0] for seed in range(60)]
    assert {understand(one.question)[:2] for one in asked} == {
        (kind, wording) for kind in LOCALIZED_KINDS for wording in SEEN_WORDINGS
    }
    names = {"red thing", "cyan thing"}
    assert {name for one in asked for name in names if name in one.question} == names
    assert MAKER.describe == DESCRIBE


@pytest.mark.parametrize(
    "bad",
    ["", "A thing, I think.", "Red thing between", "Red thing between blue and pink. Cyan"],
)
def test_an_unreadable_caption_is_not_asked_about(bad: str) -> None:
    candidates = localized([RED], bad, [WHITE], bad)
    assert [candidate.segment for candidate in candidates] == [0, 2]
    assert localized(bad, bad) == []


def test_what_is_told_otherwise_elsewhere_is_ambiguous() -> None:
    asked = localized([RED], [CYAN], [OTHERWISE], [WHITE])
    marks = [one.ambiguous for one in asked]
    assert "segment 2" in marks[0] and "segment 0" in marks[2]
    assert right_answer(asked[0].question, [OTHERWISE]) in marks[0] and marks[1] == marks[3] == ""


def test_what_is_told_alike_elsewhere_is_not_ambiguous() -> None:
    assert [one.ambiguous for one in localized([RED], [RED], [CYAN], [RED])] == [""] * 4


def test_what_a_caption_tells_of_twice_is_ambiguous() -> None:
    for seed in range(20):
        (candidate,) = localized([RED, CYAN, OTHERWISE], seed=seed)
        assert bool(candidate.ambiguous) == ("red thing" in candidate.question)


# ---------------------------------------------------------------------------------- comprehensive


@given(stories(), st.integers(0, 12), SEEDS)
def test_comprehensive_questions_are_answered_from_the_events(
    story: tuple[list[Event], list[str]], count: int, seed: int
) -> None:
    events, captions = story
    candidates = MAKER.comprehensive(captions, count, rng_of(seed))
    for candidate in candidates:
        assert candidate.granularity == "comprehensive" and candidate.segment is None
        assert not candidate.ambiguous
        kind, wording, _ = understand(candidate.question)
        assert kind == candidate.kind and kind in COMPREHENSIVE_KINDS and wording in SEEN_WORDINGS
        assert candidate.expected == right_answer(candidate.question, events)
    texts = [candidate.question for candidate in candidates]
    assert len(set(texts)) == len(texts) <= count
    if count and 3 <= len(events) <= MOST_EVENTS:
        assert texts
    else:
        assert not texts
    assert MAKER.comprehensive(captions, count, rng_of(seed)) == candidates


def test_all_comprehensive_kinds_are_asked() -> None:
    asked = [one for seed in range(30) for one in comprehensive([RED, CYAN], [WHITE], seed=seed)]
    assert {understand(one.question)[:2] for one in asked} == {
        (kind, wording) for kind in COMPREHENSIVE_KINDS for wording in SEEN_WORDINGS
    }
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
            told = right_answer(candidate.question, [RED, CYAN, WHITE])
            assert candidate.expected == told


@pytest.mark.parametrize("count", [3, 6, MOST_EVENTS])
def test_the_audit_knows_the_answer_to_all_that_is_asked(count: int) -> None:
    """Pairs are audited against `every_question` of the truth."""
    events = draw_events(rng_of(count), count)
    known = {question.text: question.answer for question in every_question(events)}
    told = [[event] for event in events]
    for seed in range(20):
        for one in [*localized(*told, seed=seed), *comprehensive(*told, count=20, seed=seed)]:
            assert known[one.question] == one.expected


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
