"""The lessons: endless, given by their seed, and short."""

import itertools
from collections import Counter
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_pipelines import lessons
from data_pipelines.images import ImagePolicy
from data_pipelines.lessons import (
    BRANCH_TOKENS,
    FRAME_COUNTS,
    LONG_EVENTS,
    LONG_FRAMES,
    MAX_FRAMES,
    MOST_EVENTS,
    LessonPlan,
    draw_clip,
    draw_long_clip,
    draw_long_question,
    draw_question,
    lesson_batch,
    train_tokenizer,
)
from data_pipelines.prompts import (
    PromptPolicy,
    answer_tokens,
    end_token,
    make_prompt,
    question_tokens,
)
from data_pipelines.synthetic import Shown
from data_pipelines.synthetic_events import (
    ALL_WORDINGS,
    COLOURS,
    COMPREHENSIVE_KINDS,
    DESCRIBE,
    LOCALIZED_KINDS,
    NUMBERS,
    WORDINGS,
    Event,
    Question,
    caption,
    draw_events,
    read_caption,
)
from tests.data_pipelines.grammar_by_hand import needed, right_answer, understand

IMAGES = ImagePolicy(size=14)
Batch = dict[str, np.ndarray]
CLIPS = 2
QUESTIONS = 3
NEVER = 10**6


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(512)


def lesson(
    tokenizer: Tokenizer, step: int, *, seed: int = 0, single: int = 0, long_from: int = NEVER
) -> Batch:
    plan = LessonPlan(
        seed=seed,
        clips=CLIPS,
        questions=QUESTIONS,
        single_events_until=single,
        long_from=long_from,
        long_clips=1,
        about_the_end=0.9,
    )
    return lesson_batch(step, plan, tokenizer, images=IMAGES, tokens_per_frame=2)


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def every_event() -> list[Event]:
    return [Event(colour=c, ceiling=up, floor=down) for c, up, down in permutations(COLOURS, 3)]


# ---------------------------------------------------------------------------------- the tokenizer


def test_the_tokenizer_is_the_same_every_time(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(512).to_str() == tokenizer.to_str()
    assert tokenizer.get_vocab_size() <= 512


def test_any_text_comes_back(tokenizer: Tokenizer) -> None:
    texts = [
        "Cyan thing between green and pink. Which thing follows the red thing?",
        " leading, trailing \n\n and  double  spaces ",
        "Grün, 绿色, 🙂 and \x00\t",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def every_text() -> set[tuple[str, str]]:
    """Every question of the grammar with every answer that it may have."""
    answers: dict[str, list[str]] = {
        "ceiling": [f"{a} thing below {b}." for a, b in permutations(COLOURS, 2)],
        "floor": [f"{a} thing above {b}." for a, b in permutations(COLOURS, 2)],
        "both": [f"{a} thing between {b} and {c}." for a, b, c in permutations(COLOURS, 3)],
        "order": [f"The {colour} thing." for colour in COLOURS],
        "count": ["One thing.", *(f"{number.capitalize()} things." for number in NUMBERS[1:])],
    }
    answers |= {"after": answers["floor"], "before": answers["floor"], "never": answers["order"]}
    answers = {kind: [one[0].upper() + one[1:] for one in told] for kind, told in answers.items()}
    return {
        (words.format(*named), answer)
        for kind, wordings in WORDINGS.items()
        for words in wordings
        for named in permutations(COLOURS, 1 + words.count("{1}") + words.count("{2}"))
        for answer in answers[kind]
        if kind not in ("order", "never") or answer.split()[1] in named
        if kind not in ("ceiling", "floor", "both") or answer.split()[0].lower() == named[0]
    }


def test_the_longest_texts_of_the_grammar_fit_a_branch(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(5)
    texts = every_text()
    assert len({text for text, _ in texts}) == 3 * (6 * 9 + 9 * 8 + 9 * 8 * 7)
    asked = {text: len(question_tokens(tokenizer, text)) for text, _ in texts | {(DESCRIBE, "")}}
    longest = sorted(every_event(), key=lambda one: -len(tokenizer.encode(caption([one])).ids))[:60]
    captions = [caption([longest[i] for i in rng.permutation(60)[:3]]) for _ in range(500)]
    captions.append(caption(longest[:3]))
    told = {
        answer: len(answer_tokens(tokenizer, answer))
        for answer in {answer for _, answer in texts} | set(captions)
    }
    for text, answer in texts | {(DESCRIBE, one) for one in captions}:
        assert asked[text] + told[answer] <= BRANCH_TOKENS, (text, answer)


# ------------------------------------------------------------------------------- clips, questions


def test_every_event_of_a_clip_is_seen_twice_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[int, list[Shown], float]] = []
    draw = lessons.draw

    def watched(scene: Any, timeline: Any, time: float) -> np.ndarray:
        drawn.append((id(scene), timeline, time))
        return draw(scene, timeline, time)

    monkeypatch.setattr(lessons, "draw", watched)
    rng = np.random.default_rng(0)
    counts: dict[int, set[int]] = {}
    for _ in range(60):
        for frames in (2, *FRAME_COUNTS):
            drawn.clear()
            pictures, events = draw_clip(rng, frames, IMAGES)
            assert pictures.shape == (frames, 14, 14, 3) and pictures.dtype == np.uint8
            assert 1 <= len(events) <= MOST_EVENTS
            counts.setdefault(frames, set()).add(len(events))
            (timeline,) = {id(told): told for _, told, _ in drawn}.values()
            times = [time for _, _, time in drawn]
            assert len(times) == frames and times == sorted(times)
            seen = [
                next(shown.event for shown in timeline if shown.start <= time < shown.end)
                for time in times
            ]
            assert [event for event, _ in itertools.groupby(seen)] == events
            assert all(seen.count(event) >= 2 for event in events)
    assert counts == {
        frames: set(range(1, min(MOST_EVENTS, max(1, frames // 3)) + 1)) for frames in counts
    }
    assert counts[2] == {1} and counts[MAX_FRAMES] == {1, 2, 3}


def check(question: Question, events: list[Event]) -> tuple[str, int]:
    """The question is answered from the events; returns its kind and its wording."""
    if question.kind == "describe":
        assert (question.text, question.answer) == (DESCRIBE, caption(events))
        return "describe", 0
    kind, wording, _ = understand(question.text)
    assert question.answer == right_answer(question.text, events)
    assert (kind, wording) == (question.kind, question.wording)
    return kind, wording


@pytest.mark.parametrize("count", [1, 2, 3])
def test_questions_are_of_every_kind_and_answered_from_the_events(count: int) -> None:
    rng = np.random.default_rng(count)
    kinds = set()
    for _ in range(500):
        events = draw_events(rng, count)
        kinds.add(check(draw_question(rng, events), events))
    asked = LOCALIZED_KINDS if count == 1 else (*LOCALIZED_KINDS, *COMPREHENSIVE_KINDS)
    assert kinds == {("describe", 0), *itertools.product(asked, ALL_WORDINGS)}


def last_needed(question: Question, events: list[Event]) -> int | None:
    """The event that a question of a known place is about, or the later of two neighbours."""
    _, _, named = understand(question.text)
    order = [event.colour for event in events]
    match question.kind:
        case "after":
            return order.index(named[0]) + 1
        case "before":
            return order.index(named[0])
        case "order" | "count" | "never":
            return None
    (event,) = needed(question.text, events)
    return events.index(event)


@pytest.mark.parametrize("about_the_end", [0.0, 0.9, 1.0])
def test_long_clips_are_asked_about_their_end(about_the_end: float) -> None:
    rng = np.random.default_rng(0)
    stories = [draw_events(rng, count) for count in (6, 7, 8)]
    at_the_end: dict[str, list[bool]] = {}
    kinds = set()
    for number in range(900):
        events = stories[number % 3]
        question = draw_long_question(rng, events, about_the_end=about_the_end)
        kinds.add(check(question, events))
        at = last_needed(question, events)
        if at is not None:
            name = "localized" if question.kind in LOCALIZED_KINDS else "neighbours"
            at_the_end.setdefault(name, []).append(at == len(events) - 1)
    assert kinds == set(itertools.product(WORDINGS, ALL_WORDINGS))
    localized, neighbours = (np.mean(at_the_end[name]) for name in ("localized", "neighbours"))
    assert abs(localized - about_the_end) < 0.04
    assert abs(neighbours - about_the_end) < 0.1 and len(at_the_end["neighbours"]) > 60


def test_elsewhere_long_clips_are_asked_about_any_other_event() -> None:
    rng = np.random.default_rng(1)
    events = draw_events(rng, 6)
    places = Counter(
        last_needed(question, events)
        for question in (draw_long_question(rng, events, about_the_end=0.0) for _ in range(400))
        if question.kind in LOCALIZED_KINDS
    )
    assert set(places) == {0, 1, 2, 3, 4} and min(places.values()) > 30


def test_a_long_clip_shows_all_of_its_events() -> None:
    rng = np.random.default_rng(2)
    counts = set()
    for _ in range(12):
        pictures, events = draw_long_clip(rng, IMAGES)
        assert pictures.shape == (LONG_FRAMES, 14, 14, 3) and pictures.dtype == np.uint8
        counts.add(len(events))
        # Ceiling and floor in turn, as they follow on each other.
        edges = np.stack([pictures[:, 0], pictures[:, -1]], axis=1).mean(axis=2).astype(float)
        steps = np.abs(np.diff(edges, axis=0)).max(axis=(1, 2))
        changes = sum(
            (a.ceiling, a.floor) != (b.ceiling, b.floor) for a, b in itertools.pairwise(events)
        )
        assert np.sum(steps > 40) == changes
    assert counts == set(range(LONG_EVENTS[0], LONG_EVENTS[1] + 1))


# ------------------------------------------------------------------------------------ the batches


def test_a_step_depends_on_seed_and_step_alone(tokenizer: Tokenizer) -> None:
    first = [lesson(tokenizer, step) for step in (0, 1, 2)]
    for step in (2, 0, 1):
        assert same(lesson(tokenizer, step), first[step])
    assert not same(lesson(tokenizer, 0, seed=1), first[0])
    assert not same(lesson(tokenizer, len(FRAME_COUNTS)), first[0])  # as many frames


def test_frame_counts_take_turns(tokenizer: Tokenizer) -> None:
    def frames(count: int, single: int) -> list[int]:
        return [lesson(tokenizer, step, single=single)["frames"].shape[1] for step in range(count)]

    assert frames(4, 0) == [*FRAME_COUNTS, FRAME_COUNTS[0]]
    assert sorted(frames(6, 3)) == sorted([2, 2, 2, *FRAME_COUNTS])
    assert set(frames(3, 3)) == {2}
    assert max(FRAME_COUNTS) == MAX_FRAMES


def test_long_clips_come_every_second_time(tokenizer: Tokenizer) -> None:
    for step in range(4):
        short, mixed = lesson(tokenizer, step), lesson(tokenizer, step, long_from=2)
        assert same(short, mixed) == (step != 3)
    assert mixed["frames"].shape == (1, LONG_FRAMES, 14, 14, 3)
    assert mixed["answers"].shape == (1, QUESTIONS, BRANCH_TOKENS)
    rng = np.random.default_rng([0, 3])
    pictures, events = draw_long_clip(rng, IMAGES)
    asked = [draw_long_question(rng, events, about_the_end=0.9) for _ in range(QUESTIONS)]
    np.testing.assert_array_equal(mixed["frames"][0], pictures)
    assert answers(tokenizer, mixed, 0) == [question.answer for question in asked]


def answers(tokenizer: Tokenizer, batch: Batch, row: int) -> list[str]:
    """What is supervised, as text; each ends its turn."""
    texts = []
    for targets, mask in zip(batch["answers"][row], batch["answer_mask"][row], strict=True):
        learned = targets[mask > 0].tolist()
        assert learned[-1] == end_token(tokenizer) and learned.count(learned[-1]) == 1
        texts.append(tokenizer.decode(learned[:-1]))
    return texts


def test_single_events_come_first(tokenizer: Tokenizer) -> None:
    for step in range(20):
        batch = lesson(tokenizer, step, single=20)
        assert batch["frames"].shape == (CLIPS, 2, 14, 14, 3)
        for row in range(CLIPS):
            for text in answers(tokenizer, batch, row):
                assert text.count(".") == 1 and text.count("thing") <= 1


def test_two_hundred_lessons(tokenizer: Tokenizer) -> None:
    """None exceeds its bucket, and each holds the very words of the questions drawn for it."""
    for step in range(200 // (CLIPS * QUESTIONS) + 1):
        batch = lesson(tokenizer, step, seed=7)
        frames = FRAME_COUNTS[step % len(FRAME_COUNTS)]
        prompt = int((batch["branch"][0] == 0).sum())
        assert batch["tokens"].shape == (CLIPS, prompt + QUESTIONS * BRANCH_TOKENS)
        assert batch["answers"].shape == batch["answer_mask"].shape
        assert batch["answers"].shape == (CLIPS, QUESTIONS, BRANCH_TOKENS)
        rng = np.random.default_rng([7, step])
        for row in range(CLIPS):
            pictures, events = draw_clip(rng, frames, IMAGES)
            questions = [draw_question(rng, events) for _ in range(QUESTIONS)]
            np.testing.assert_array_equal(batch["frames"][row], pictures)
            told = answers(tokenizer, batch, row)
            assert told == [question.answer for question in questions]
            for number, question in enumerate(questions):
                # Prompt and branch without the answer are what a model is asked later.
                branch = batch["branch"][row] == number + 1
                given = np.concatenate(
                    [[0], batch["answer_mask"][row, number][: int(branch.sum()) - 1]]
                )
                assert (np.diff(given) >= 0).all()  # given first, then learned to the end
                asked = make_prompt(
                    tokenizer, question.text, visual_tokens=2 * frames, policy=PromptPolicy()
                )
                seen = [
                    np.concatenate([values[row][:prompt], values[row][branch]])
                    for values in (batch["tokens"], batch["visual_index"], batch["positions"])
                ]
                length = len(asked.tokens)
                np.testing.assert_array_equal(seen[0][:length], asked.tokens)
                np.testing.assert_array_equal(seen[1][:length], asked.visual_index)
                np.testing.assert_array_equal(seen[2], np.arange(len(seen[2])))
                assert tokenizer.decode(seen[0][length:].tolist()) == question.answer
                assert int(batch["answer_mask"][row, number].sum()) == len(seen[0]) - length
                if question.kind == "describe":
                    assert read_caption(told[number]) == events
