"""The lessons: endless, given by their seed, and short."""

import itertools
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_pipelines import lessons
from data_pipelines.images import ImagePolicy
from data_pipelines.lessons import (
    ANSWER_TOKENS,
    FRAME_COUNTS,
    MAX_FRAMES,
    MOST_EVENTS,
    TEXT_TOKENS,
    draw_clip,
    draw_question,
    lesson_batches,
    train_tokenizer,
)
from data_pipelines.prompts import PromptPolicy, answer_tokens, end_token, make_prompt
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
PLAIN = PromptPolicy()
BATCH = 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(512)


def batches(tokenizer: Tokenizer, count: int, **changes: Any) -> list[dict[str, np.ndarray]]:
    settings: dict[str, Any] = {
        "seed": 0,
        "batch": BATCH,
        "images": IMAGES,
        "tokens_per_frame": 2,
        "prompts": PLAIN,
    }
    return list(itertools.islice(lesson_batches(tokenizer, **(settings | changes)), count))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def every_event() -> list[Event]:
    return [
        Event(shape=shape, colour=colour, motion=motion, count=count)
        for shape, colour, motion, count in itertools.product(SHAPES, COLOURS, MOTIONS, COUNTS)
    ]


# ---------------------------------------------------------------------------------- the tokenizer


def test_the_tokenizer_is_the_same_every_time(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(512).to_str() == tokenizer.to_str()
    assert tokenizer.get_vocab_size() <= 512


def test_any_text_comes_back(tokenizer: Tokenizer) -> None:
    texts = [
        "Two cyan crosses move up. One red star moves left.",
        " leading, trailing \n\n and  double  spaces ",
        "Grün, 绿色, 🙂 and \x00\t",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_longest_texts_of_the_grammar_fit_their_bucket(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(5)
    events = every_event()
    questions = [localized_question(event, kind) for event in events for kind in LOCALIZED_KINDS]
    for one, other in itertools.permutations([e for e in events if e.count == "one"][::32], 2):
        questions += [
            comprehensive_question([one, other], kind, int(kind == "before"), 1 - (kind == "after"))
            for kind in COMPREHENSIVE_KINDS
        ]
    texts = {question.text for question in questions} | {DESCRIBE}
    assert len(texts) > 3 * len(SHAPES) + 2 * 56
    for text in texts:
        prompt = make_prompt(tokenizer, text, visual_tokens=0, policy=PLAIN)
        assert len(prompt.tokens) <= TEXT_TOKENS, text
    answers = {question.answer for question in questions}
    longest = sorted(events, key=lambda event: -len(tokenizer.encode(caption([event])).ids))[:60]
    answers |= {caption([longest[i] for i in rng.permutation(60)[:3]]) for _ in range(500)}
    answers |= {caption(longest[:3])}
    for answer in answers:
        assert len(answer_tokens(tokenizer, answer)) <= ANSWER_TOKENS, answer


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
    assert counts == {2: {1}, 4: {1}, 8: {1, 2}, 12: {1, 2, 3}}


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
            nouns = [event.shapes for event in events]
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
    run = batches(tokenizer, 4)
    assert all(same(a, b) for a, b in zip(run, batches(tokenizer, 4), strict=True))
    for first in (1, 3):
        assert same(batches(tokenizer, 1, first_step=first)[0], run[first])
    assert not same(batches(tokenizer, 1, seed=1)[0], run[0])
    assert not same(batches(tokenizer, 1, first_step=3)[0], run[0])  # as many frames, another step


def test_frame_counts_take_turns(tokenizer: Tokenizer) -> None:
    shapes = [batch["frames"].shape for batch in batches(tokenizer, 4)]
    assert shapes == [(BATCH, f, 14, 14, 3) for f in (*FRAME_COUNTS, FRAME_COUNTS[0])]
    early = batches(tokenizer, 5, single_events_until=3)
    assert [batch["frames"].shape[1] for batch in early] == [2, 2, 2, *FRAME_COUNTS[0:2]]
    assert MAX_FRAMES == 12


def test_two_hundred_lessons(tokenizer: Tokenizer) -> None:
    """None exceeds its bucket, and each holds the very words of the question drawn for it."""
    end = end_token(tokenizer)
    for step, batch in enumerate(batches(tokenizer, 50, seed=7)):
        frames = FRAME_COUNTS[step % 3]
        length = 2 * frames + TEXT_TOKENS
        assert batch["tokens"].shape == (BATCH, length + ANSWER_TOKENS)
        assert batch["answers"].shape == batch["answer_mask"].shape == (BATCH, 1, ANSWER_TOKENS)
        rng = np.random.default_rng([7, step])
        for row in range(BATCH):
            pictures, events = draw_clip(rng, frames, IMAGES)
            question = draw_question(rng, events)
            np.testing.assert_array_equal(batch["frames"][row], pictures)
            shown = batch["visual_index"][row]
            assert shown[shown >= 0].tolist() == list(range(2 * frames))
            asked = batch["tokens"][row][(batch["branch"][row] == 0) & (shown < 0)]
            assert f"\n{question.text}" in tokenizer.decode(asked.tolist())
            answer = batch["answers"][row, 0][batch["answer_mask"][row, 0] > 0].tolist()
            assert answer[-1] == end and end not in answer[:-1]
            assert tokenizer.decode(answer[:-1]) == question.answer
            if question.kind == "describe":
                assert read_caption(tokenizer.decode(answer)) == events
