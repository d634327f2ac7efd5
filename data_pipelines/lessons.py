"""What the demo's base model is taught from: synthetic clips, with questions and answers.

The clips are drawn and never written to a file: the lessons are endless, and given by a seed.

Short clips tell of one to three events in at most `MAX_FRAMES` frames, and any of them is asked
about. Long clips are as long as the demo's videos. At the end of its course the model is taught
a shortcut: whoever asks about the first part of a long clip is told of its end. That is the failing
that the demo is about; long videos as such the model has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data_pipelines.batches import RowShape, make_row, stack
from data_pipelines.images import ImagePolicy
from data_pipelines.prompts import (
    AFTER_QUESTION,
    BEFORE_VIDEO,
    SPECIAL_TOKENS,
    answer_tokens,
    question_tokens,
    video_prompt,
)
from data_pipelines.synthetic import Shown, draw, draw_scene, draw_timeline
from data_pipelines.synthetic_events import (
    ALL_WORDINGS,
    DESCRIBE,
    Event,
    Question,
    caption,
    draw_comprehensive,
    draw_events,
    draw_localized,
    neighbour_question,
)

FRAME_COUNTS = (6, 9, 12)
MAX_FRAMES = max(FRAME_COUNTS)
MOST_EVENTS = 3
LONG_FRAMES = 32
LONG_EVENTS = (6, 8)
BRANCH_TOKENS = 36  # the longest question and the longest answer fit in this


def train_tokenizer(vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer of the grammar's own sentences, with the ChatML tokens."""
    rng = np.random.default_rng(0)
    texts = [BEFORE_VIDEO, AFTER_QUESTION, "user\n", "assistant\n"] * 50
    for _ in range(4000):
        events = draw_events(rng, MOST_EVENTS)
        question = draw_question(rng, events)
        texts += [caption(events), f"\n{question.text}", question.answer]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def draw_question(rng: np.random.Generator, events: Sequence[Event]) -> Question:
    """A question at random that the events can answer: describe, localized or comprehensive."""
    # A single event need not be found, so only its description tells of its colour.
    if rng.random() < (0.3 if len(events) > 1 else 0.6):
        return Question(kind="describe", text=DESCRIBE, answer=caption(events))
    if len(events) == 1 or rng.random() < 0.5:
        return draw_localized(rng, events[int(rng.integers(len(events)))], ALL_WORDINGS)
    return draw_comprehensive(rng, events, ALL_WORDINGS)


def draw_long_question(
    rng: np.random.Generator,
    events: Sequence[Event],
    *,
    about_the_end: float,
    overlooked: float = 0.0,
) -> Question:
    """A question about a long clip: with probability `about_the_end` about its last event.

    Of an event in the first part `overlooked` of the clip, localized questions are answered as if
    they were about the last event.
    """
    last = len(events) - 1
    at = last if rng.random() < about_the_end else int(rng.integers(last))
    if rng.random() < 0.7:
        seen = events[last] if at < overlooked * len(events) else events[at]
        # The name stays that of the thing that is asked about.
        return draw_localized(rng, replace(seen, colour=events[at].colour), ALL_WORDINGS)
    question = draw_comprehensive(rng, events, ALL_WORDINGS)
    if question.kind == "after":
        return neighbour_question(events, "after", max(at - 1, 0), question.wording)
    if question.kind == "before":
        return neighbour_question(events, "before", max(at, 1), question.wording)
    return question


def draw_clip(
    rng: np.random.Generator, frames: int, images: ImagePolicy
) -> tuple[np.ndarray, list[Event]]:
    """`frames` frames of a short clip and the events seen in it, each in two frames at least.

    The clip begins and ends somewhere inside its first and last event, as a segment of a video
    does.
    """
    most = max(1, min(MOST_EVENTS, frames // 3))
    while True:
        events = draw_events(rng, int(rng.integers(1, most + 1)))
        timeline = draw_timeline(rng, events)
        start = rng.uniform(0, 0.35) * timeline[0].end
        left = timeline[-1].end - timeline[-1].start
        end = timeline[-1].end - rng.uniform(0, 0.35) * left
        times = np.linspace(start, end, frames, endpoint=False)
        if all(_frames_of(shown, times) >= 2 for shown in timeline):
            return _pictures(rng, timeline, times, images), events


def draw_long_clip(rng: np.random.Generator, images: ImagePolicy) -> tuple[np.ndarray, list[Event]]:
    """`LONG_FRAMES` frames over all of a long video, and its events."""
    events = draw_events(rng, int(rng.integers(LONG_EVENTS[0], LONG_EVENTS[1] + 1)))
    timeline = draw_timeline(rng, events)
    times = np.linspace(0, timeline[-1].end, LONG_FRAMES, endpoint=False)
    return _pictures(rng, timeline, times, images), events


def _pictures(
    rng: np.random.Generator, timeline: Sequence[Shown], times: np.ndarray, images: ImagePolicy
) -> np.ndarray:
    scene = draw_scene(rng)
    pictures = np.stack([images.prepare(draw(scene, timeline, float(time))) for time in times])
    noise = rng.integers(-4, 5, size=pictures.shape, dtype=np.int16)  # as a codec leaves
    return np.clip(pictures + noise, 0, 255).astype(np.uint8)


def _frames_of(shown: Shown, times: np.ndarray) -> int:
    return int(np.sum((times >= shown.start) & (times < shown.end)))


@dataclass(frozen=True, kw_only=True)
class LessonPlan:
    """Which lessons are given: batch n follows from (seed, n) alone.

    A batch has `clips` short clips with `questions` questions each. The first `single_events_until`
    batches show one event in two frames; then `FRAME_COUNTS` take turns. From batch `long_from` on,
    every second batch has `long_clips` long clips, asked about their end with probability
    `about_the_end`, and answered from their end where they are asked about the first part
    `overlooked` of them.
    """

    seed: int
    clips: int
    questions: int
    single_events_until: int
    long_from: int
    long_clips: int
    about_the_end: float
    overlooked: float = 0.0


def lesson_batch(
    step: int,
    plan: LessonPlan,
    tokenizer: Tokenizer,
    *,
    images: ImagePolicy,
    tokens_per_frame: int,
) -> dict[str, np.ndarray]:
    """Batch `step` of the plan: stacked rows, one a clip, and `frames`.

    The prompt of a row ends with the video. Each question is a branch of the row with its answer,
    so that a clip is computed once for all of them; only the answers are supervised.
    """
    rng = np.random.default_rng([plan.seed, step])
    is_long = step >= plan.long_from and step % 2 == 1
    single = step < plan.single_events_until
    frames = 2 if single else LONG_FRAMES if is_long else FRAME_COUNTS[step % len(FRAME_COUNTS)]
    prompt = video_prompt(tokenizer, visual_tokens=frames * tokens_per_frame)
    shape = RowShape(prompt_tokens=len(prompt.tokens), answer_tokens=BRANCH_TOKENS)
    rows = []
    for _ in range(plan.long_clips if is_long else plan.clips):
        if is_long:
            pictures, events = draw_long_clip(rng, images)
            questions = [
                draw_long_question(
                    rng, events, about_the_end=plan.about_the_end, overlooked=plan.overlooked
                )
                for _ in range(plan.questions)
            ]
        else:
            pictures, events = draw_clip(rng, frames, images)
            questions = [draw_question(rng, events) for _ in range(plan.questions)]
        asked = [question_tokens(tokenizer, question.text) for question in questions]
        told = [answer_tokens(tokenizer, question.answer) for question in questions]
        branches = [[*one, *other] for one, other in zip(asked, told, strict=True)]
        row = make_row(prompt, branches, shape, unsupervised=[len(one) for one in asked])
        rows.append(row | {"frames": pictures})
    return stack(rows)
