"""Questions made from captions.

A maker sees captions only, never the video and never the truth. It may decline: an unreadable
caption gives no question. `RuleQuestions` is the maker of the demo, which knows the grammar of
synthetic captions; a language model behind an endpoint is another maker of the same form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data_pipelines.synthetic_events import (
    DESCRIBE,
    MOST_EVENTS,
    SEEN_WORDINGS,
    Event,
    Question,
    draw_comprehensive,
    draw_localized,
    localized_question,
    read_caption,
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A question before it is answered; `segment` is its number in the video (localized only)."""

    granularity: str
    kind: str
    question: str
    segment: int | None
    expected: str  # the answer as the captions have it; for the judge
    ambiguous: str = ""  # why the captions allow another answer; empty if they do not
    evidence: str = ""  # what a judge reads: captions, or the answer that came with the question
    given: bool = False  # question and `expected` are somebody's, not made from captions
    drop: tuple[str, str] | None = None  # filter and reason, if it is not to be asked at all


Segment = tuple[float, float]  # start and end, seconds


class QuestionMaker(Protocol):
    """Captions in, candidates out."""

    name: str
    describe: str  # how a caption is asked for

    def localized(
        self, captions: Sequence[str], segments: Sequence[Segment], rng: np.random.Generator
    ) -> list[Candidate]:
        """Questions about single segments; captions and segments (start, end) in order."""
        ...

    def comprehensive(
        self, captions: Sequence[str], count: int, rng: np.random.Generator
    ) -> list[Candidate]:
        """At most `count` questions about the whole video."""
        ...


class RuleQuestions:
    """Questions in the grammar of `synthetic_events`, from captions in the same grammar."""

    # Count up when other questions come out: it is part of what pairs are made from.
    name = "rules 2"
    describe = DESCRIBE

    def localized(
        self, captions: Sequence[str], segments: Sequence[Segment], rng: np.random.Generator
    ) -> list[Candidate]:
        """One question a readable caption, about one of its events.

        Ambiguous where another caption, or the same, answers it otherwise.
        """
        told = [read_caption(caption) or [] for caption in captions]
        candidates = []
        for number, events in enumerate(told):
            if not events:
                continue
            event = events[int(rng.integers(len(events)))]
            question = draw_localized(rng, event, SEEN_WORDINGS)
            answers = [
                (other, localized_question(one, question.kind).answer)
                for other, seen in enumerate(told)
                for one in seen
                if one.colour == event.colour
            ]
            against = [f"segment {at}: {said}" for at, said in answers if said != question.answer]
            ambiguous = against[0] if against else ""
            candidates.append(_candidate("localized", question, number, ambiguous))
        return candidates

    def comprehensive(
        self, captions: Sequence[str], count: int, rng: np.random.Generator
    ) -> list[Candidate]:
        """Questions about all events; none unless the captions tell one clear story."""
        events = _story(captions)
        if events is None or not 3 <= len(events) <= MOST_EVENTS:
            return []
        questions: dict[str, Question] = {}
        for _ in range(4 * count):
            question = draw_comprehensive(rng, events, SEEN_WORDINGS)
            questions.setdefault(question.text, question)
        return [
            _candidate("comprehensive", question, None)
            for question in list(questions.values())[:count]
        ]


class TimeQuestions:
    """What is shown when: questions for any video and any model, with no rules about captions.

    The chosen answer to "from 8 to 16 seconds" is what the model says with that segment in view;
    learned on the whole video, it asks the model to find the time by itself.
    """

    name = "time 1"
    describe = "Describe what is shown."

    def localized(
        self, captions: Sequence[str], segments: Sequence[Segment], rng: np.random.Generator
    ) -> list[Candidate]:
        """One question a segment."""
        return [
            Candidate(
                granularity="localized",
                kind="time",
                question=f"What is shown from {start:.0f} to {end:.0f} seconds of the video?",
                segment=number,
                expected="",
            )
            for number, (start, end) in enumerate(segments)
        ]

    def comprehensive(
        self, captions: Sequence[str], count: int, rng: np.random.Generator
    ) -> list[Candidate]:
        """One question about all of it."""
        story = Candidate(
            granularity="comprehensive",
            kind="story",
            question="Describe everything that is shown in the video, in order.",
            segment=None,
            expected="",
        )
        return [story][:count]


def _candidate(
    granularity: str, question: Question, segment: int | None, ambiguous: str = ""
) -> Candidate:
    return Candidate(
        granularity=granularity,
        kind=question.kind,
        question=question.text,
        segment=segment,
        expected=question.answer,
        ambiguous=ambiguous,
    )


def _story(captions: Sequence[str]) -> list[Event] | None:
    """Events in order, told once each; None if one comes back after another was seen.

    None too if a caption is unreadable: an event may hide there, before or after any other.
    """
    story: list[Event] = []
    for caption in captions:
        events = read_caption(caption)
        if events is None:
            return None
        for event in events:
            if any(event.colour == told.colour for told in story[:-1]):
                return None
            if not story or story[-1].colour != event.colour:
                story.append(event)
    return story
