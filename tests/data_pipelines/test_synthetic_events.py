"""The grammar of synthetic videos: it can be read back, and every answer is right."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.synthetic_events import (
    ALL_WORDINGS,
    COLOURS,
    COMPREHENSIVE_KINDS,
    HELDOUT_THINGS,
    LOCALIZED_KINDS,
    MOST_EVENTS,
    SEEN_WORDINGS,
    WORDINGS,
    Event,
    Question,
    caption,
    count_question,
    draw_comprehensive,
    draw_events,
    draw_localized,
    every_question,
    localized_question,
    neighbour_question,
    never_question,
    order_question,
    read_caption,
)
from tests.data_pipelines.grammar_by_hand import WRITTEN, right_answer, understand

EVENTS = st.builds(
    lambda colours: Event(colour=colours[0], ceiling=colours[1], floor=colours[2]),
    st.permutations(COLOURS),
)
RED = Event(colour="red", ceiling="blue", floor="pink")
CYAN = Event(colour="cyan", ceiling="green", floor="orange")
WHITE = Event(colour="white", ceiling="blue", floor="orange")


# ------------------------------------------------------------------------------- the grammar


@given(st.lists(EVENTS, min_size=1, max_size=8))
def test_a_caption_is_read_back(events: list[Event]) -> None:
    assert read_caption(caption(events)) == events
    assert read_caption(f"  {caption(events)}\n") == events


@given(st.lists(EVENTS, min_size=1, max_size=3), st.data())
def test_a_caption_with_a_word_changed_is_another_or_none(
    events: list[Event], data: st.DataObject
) -> None:
    words = caption(events).split()
    at = data.draw(st.integers(0, len(words) - 1))
    words[at] = data.draw(st.sampled_from([*COLOURS, "Red", "thing", "pink.", "so", "", "."]))
    changed = " ".join(words)
    read = read_caption(changed)
    assert read is None or caption(read) == changed.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A red thing between blue and pink.",
        "Red thing between blue and pink",
        "Red things between blue and pink.",
        "Red ring between blue and pink.",
        "Red thing between blue, pink.",
        "Grey thing between blue and pink.",
        "Red thing between blue and grey.",
        "Red thing between Blue and pink.",
        "Red thing between blue and pink. And then nothing.",
        "red thing between blue and pink.",
    ],
)
def test_another_form_is_not_read(text: str) -> None:
    assert read_caption(text) is None


def test_captions_as_written_by_hand() -> None:
    told = "Red thing between blue and pink. Cyan thing between green and orange."
    assert caption([RED, CYAN]) == told


def test_questions_as_written_by_hand() -> None:
    assert {
        (kind, wording): text.replace("{0}", "X").replace("{1}", "X").replace("{2}", "X")
        for kind, texts in WORDINGS.items()
        for wording, text in enumerate(texts)
    } == WRITTEN
    assert list(WORDINGS) == [*LOCALIZED_KINDS, *COMPREHENSIVE_KINDS]
    # The last of each is kept back.
    assert [*SEEN_WORDINGS] == [0, 1] and [*ALL_WORDINGS] == [0, 1, 2]
    assert {len(texts) for texts in WORDINGS.values()} == {len(ALL_WORDINGS)}


def test_answers_as_written_by_hand() -> None:
    events = [RED, CYAN, WHITE]
    asked = [
        *(localized_question(CYAN, kind) for kind in LOCALIZED_KINDS),
        neighbour_question(events, "after", 1, 2),
        neighbour_question(events, "before", 1, 1),
        order_question(events, 2, 1, 1),
        count_question(events, "orange"),
        count_question(events, "pink", 2),
        never_question(events, ["red", "blue", "white"], 1),
    ]
    assert [(question.kind, question.text, question.answer) for question in asked] == [
        ("ceiling", "What colour is the ceiling over the cyan thing?", "Cyan thing below green."),
        ("floor", "What colour is the floor under the cyan thing?", "Cyan thing above orange."),
        ("both", "What are the ceiling and the floor of the cyan thing?",
         "Cyan thing between green and orange."),
        ("after", "Which thing follows the cyan thing?", "White thing above orange."),
        ("before", "What is shown just ahead of the cyan thing?", "Red thing above pink."),
        ("order", "Is the white thing or the cyan thing shown earlier?", "The cyan thing."),
        ("count", "How many things have a orange floor?", "Two things."),
        ("count", "Count the things over a pink floor.", "One thing."),
        ("never", "Which of these is not in the video: the red, the blue or the white thing?",
         "The blue thing."),
    ]  # fmt: skip
    assert [question.wording for question in asked] == [0, 0, 0, 2, 1, 1, 0, 2, 1]


@given(EVENTS)
def test_a_question_does_not_tell_its_answer(event: Event) -> None:
    for kind, told in (("ceiling", [event.ceiling]), ("floor", [event.floor]),
                       ("both", [event.ceiling, event.floor])):  # fmt: skip
        for wording in ALL_WORDINGS:
            question = localized_question(event, kind, wording)
            words = question.answer.rstrip(".").split()
            assert all(one in words and one not in question.text.split() for one in told)


def test_what_has_no_answer_is_not_asked() -> None:
    with pytest.raises(IndexError):
        neighbour_question([RED, CYAN], "after", 1)
    with pytest.raises(IndexError):
        neighbour_question([RED, CYAN], "before", 0)
    with pytest.raises(ValueError, match="known"):
        localized_question(RED, "after")
    for options in (["red", "cyan", "white"], ["red", "blue", "white"]):  # none, and two
        with pytest.raises(ValueError):
            never_question([RED, CYAN, WHITE] if "cyan" in options else [RED, CYAN], options)


def drawn_with(events: list[Event], wordings: range, seed: int, count: int) -> set[Question]:
    rng = np.random.default_rng(seed)
    told = {draw_localized(rng, event, wordings) for event in events for _ in range(count)}
    if len(events) > 1:
        told |= {draw_comprehensive(rng, events, wordings) for _ in range(count * len(events))}
    return told


@pytest.mark.parametrize("count", [1, 2, 3, 6, MOST_EVENTS])
def test_every_question_is_there_once_and_answered_right(count: int) -> None:
    events = draw_events(np.random.default_rng(count), count)
    questions = list(every_question(events))
    assert len({question.text for question in questions}) == len(questions)
    for question in questions:
        kind, wording, _ = understand(question.text)
        assert (kind, wording) == (question.kind, question.wording)
        assert question.answer == right_answer(question.text, events)
    # As many as there are, by counting.
    floors, absent = len({event.floor for event in events}), len(COLOURS) - count
    expected = dict.fromkeys(LOCALIZED_KINDS, count) | {
        "after": count - 1,
        "before": count - 1,
        "order": count * (count - 1),
        "count": floors,
        "never": 6 * absent * count * (count - 1) // 2,
    }
    found = Counter((question.kind, question.wording) for question in questions)
    assert found == Counter({(k, w): n for k, n in expected.items() for w in ALL_WORDINGS})
    assert drawn_with(events, ALL_WORDINGS, count, 60) <= set(questions)


def test_questions_are_drawn_of_every_kind_in_the_wordings_given() -> None:
    events = draw_events(np.random.default_rng(0), 6)
    for wordings in (ALL_WORDINGS, SEEN_WORDINGS, range(1, 2)):
        found = {(one.kind, one.wording) for one in drawn_with(events, wordings, 1, 60)}
        assert found == {(kind, wording) for kind in WORDINGS for wording in wordings}


def test_a_number_is_not_drawn_more_often_for_being_frequent() -> None:
    """Of eight things' floors, one comes three times, one twice, others once."""
    rng = np.random.default_rng(3)
    answers = Counter[str]()
    stories = [draw_events(rng, 8) for _ in range(10)]
    while answers.total() < 600:
        question = draw_comprehensive(rng, stories[answers.total() % 10], ALL_WORDINGS)
        answers.update([question.answer] if question.kind == "count" else [])
    assert set(answers) == {"One thing.", "Two things.", "Three things."}
    assert all(abs(number - 200) < 50 for number in answers.values()), answers


# ----------------------------------------------------------------------------- the events drawn


@pytest.mark.parametrize("heldout_things", [True, False])
@pytest.mark.parametrize("count", range(1, MOST_EVENTS + 1))
def test_events_differ_where_they_must(count: int, heldout_things: bool) -> None:
    rng = np.random.default_rng(count)
    for _ in range(15):
        events = draw_events(rng, count, heldout_things=heldout_things)
        assert len({event.colour for event in events}) == len(events) == count
        for event in events:
            assert len({event.colour, event.ceiling, event.floor}) == 3
            if not heldout_things:
                assert (event.colour, event.floor) not in HELDOUT_THINGS
        if count >= 6:
            for part in ("ceiling", "floor"):
                often = Counter(getattr(event, part) for event in events)
                assert sorted(often.values(), reverse=True) == [3, 2, *[1] * (count - 5)]


def test_things_that_are_held_out() -> None:
    """A quarter of all things; no colour and no floor is held out altogether."""
    assert 4 * len(HELDOUT_THINGS) == len(list(permutations(COLOURS, 2)))
    assert Counter(colour for colour, _ in HELDOUT_THINGS) == Counter(list(COLOURS) * 2)
    assert Counter(floor for _, floor in HELDOUT_THINGS) == Counter(list(COLOURS) * 2)
    assert all(colour != floor for colour, floor in HELDOUT_THINGS)
    rng = np.random.default_rng(0)
    drawn = [(e.colour, e.floor) for _ in range(60) for e in draw_events(rng, 6)]
    share = np.mean([thing in HELDOUT_THINGS for thing in drawn])
    assert 0.18 < share < 0.32  # 18 of 72
