"""The lessons: endless, given by their seed, and short."""

import itertools
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_pipelines import lessons
from data_pipelines.images import ImagePolicy
from data_pipelines.lessons import (
    BRANCH_TOKENS,
    FRAME_COUNTS,
    MAX_FRAMES,
    MOST_EVENTS,
    LessonPlan,
    draw_clip,
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
from data_pipelines.synthetic import Shown, draw_events
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
    comprehensive_question,
    localized_question,
    read_caption,
)

IMAGES = ImagePolicy(size=14)
Batch = dict[str, np.ndarray]
CLIPS = 2
QUESTIONS = 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(512)


def lesson(tokenizer: Tokenizer, step: int, *, seed: int = 0, single: int = 0) -> Batch:
    plan = LessonPlan(seed=seed, clips=CLIPS, questions=QUESTIONS, single_events_until=single)
    return lesson_batch(step, plan, tokenizer, images=IMAGES, tokens_per_frame=2)


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def every_event() -> list[Event]:
    return [
        Event(shape=shape, colour=colour, motion=motion, count=count)
        for colour, shape, motion, count in itertools.product(COLOURS, SHAPES, MOTIONS, COUNTS)
    ]


# ---------------------------------------------------------------------------------- the tokenizer


def test_the_tokenizer_is_the_same_every_time(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(512).to_str() == tokenizer.to_str()
    assert tokenizer.get_vocab_size() <= 512


def test_any_text_comes_back(tokenizer: Tokenizer) -> None:
    texts = [
        "Two cyan crosses move up. One red ring moves left.",
        " leading, trailing \n\n and  double  spaces ",
        "Grün, 绿色, 🙂 and \x00\t",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_longest_texts_of_the_grammar_fit_a_branch(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(5)
    events = every_event()
    questions = [localized_question(event, kind) for event in events for kind in LOCALIZED_KINDS]
    for one, other in itertools.permutations(events[:: len(events) // len(COLOURS)], 2):
        questions += [
            comprehensive_question([one, other], kind, int(kind == "before"), 1 - (kind == "after"))
            for kind in COMPREHENSIVE_KINDS
        ]
    texts = {question.text for question in questions}
    assert len(texts) == 5 * len(COLOURS) + len(COLOURS) * (len(COLOURS) - 1) + 2
    longest = sorted(events, key=lambda event: -len(tokenizer.encode(caption([event])).ids))[:60]
    captions = [caption([longest[i] for i in rng.permutation(60)[:3]]) for _ in range(500)]
    captions.append(caption(longest[:3]))
    asked = {(question.text, question.answer) for question in questions}
    for text, answer in asked | {(DESCRIBE, told) for told in captions}:
        branch = [*question_tokens(tokenizer, text), *answer_tokens(tokenizer, answer)]
        assert len(branch) <= BRANCH_TOKENS, (text, answer)


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


@pytest.mark.parametrize("count", [1, 2, 3])
def test_questions_are_of_every_kind_and_answered_from_the_events(count: int) -> None:
    rng = np.random.default_rng(count)
    kinds = set()
    for _ in range(300):
        events = draw_events(rng, count)
        question = draw_question(rng, events)
        kinds.add(question.kind)
        right = {(DESCRIBE, caption(events))}
        right |= {
            (q.text, q.answer)
            for event in events
            for kind in LOCALIZED_KINDS
            for q in [localized_question(event, kind)]
        }
        if count > 1:
            nouns = [event.name for event in events]
            right |= {
                ("What comes first in the video?", f"The {nouns[0]} come first."),
                ("What comes last in the video?", f"The {nouns[-1]} come last."),
            }
            for a, b in itertools.pairwise(nouns):
                right.add(
                    (f"What comes right after the {a}?", f"The {b} come right after the {a}.")
                )
                right.add(
                    (f"What comes right before the {b}?", f"The {a} come right before the {b}.")
                )
            for a, b in itertools.combinations(nouns, 2):
                right.add((f"Which come first, the {a} or the {b}?", f"The {a} come first."))
                right.add((f"Which come first, the {b} or the {a}?", f"The {a} come first."))
        assert (question.text, question.answer) in right
    expected = {"describe", *LOCALIZED_KINDS}
    assert kinds == (expected if count == 1 else expected | set(COMPREHENSIVE_KINDS))


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
                assert text.count(".") == 1 and "first" not in text and "last" not in text


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
