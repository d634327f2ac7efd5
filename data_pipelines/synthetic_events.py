"""What happens in a synthetic video, and how it is spoken of: events, captions, questions, answers.

One small grammar serves everyone who speaks about synthetic videos: the lessons the demo's base
model is taught from, the rules that make questions out of captions, and the scoring. It holds no
knowledge of any particular video.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

SHAPES = ("square", "ring", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan")
MOTIONS = ("left", "right", "up", "down")
COUNTS = ("one", "two", "three")

DESCRIBE = "Describe what is shown."
LOCALIZED_KINDS = ("shape", "motion", "count")
COMPREHENSIVE_KINDS = ("after", "before", "order", "first", "last")


@dataclass(frozen=True, kw_only=True)
class Event:
    """`count` objects of one shape and colour moving one way."""

    shape: str
    colour: str
    motion: str
    count: str

    @property
    def plural(self) -> str:
        """Its shape, in the plural."""
        return "crosses" if self.shape == "cross" else f"{self.shape}s"

    @property
    def name(self) -> str:
        """What questions call it: its colour, which no other event of a video has.

        A plural whatever the count is, so that a question does not give it away.
        """
        return f"{self.colour} shapes"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its one right answer."""

    kind: str
    text: str
    answer: str


def caption(events: Sequence[Event]) -> str:
    """One sentence an event, in order."""
    return " ".join(_sentence(event) for event in events)


def _sentence(event: Event) -> str:
    if event.count == "one":
        return f"One {event.colour} {event.shape} moves {event.motion}."
    return f"{event.count.capitalize()} {event.colour} {event.plural} move {event.motion}."


_SINGULAR = {Event(shape=s, colour="", motion="", count="").plural: s for s in SHAPES}
_SENTENCE = re.compile(r"(\w+) (\w+) (\w+) moves? (\w+)\.")


def read_caption(text: str) -> list[Event] | None:
    """The events a caption tells of; None where it is not of the form `caption` writes."""
    events = []
    for count, colour, noun, motion in _SENTENCE.findall(text):
        shape = _SINGULAR.get(noun, noun)
        event = Event(shape=shape, colour=colour, motion=motion, count=count.lower())
        known = event.shape in SHAPES and event.colour in COLOURS
        if not (known and event.motion in MOTIONS and event.count in COUNTS):
            return None
        events.append(event)
    return events if events and caption(events) == text.strip() else None


def localized_question(event: Event, kind: str) -> Question:
    """A question about one event alone."""
    noun = event.name
    match kind:
        case "shape":
            return Question(
                kind=kind,
                text=f"What are the {noun}?",
                answer=f"The {noun} are {event.plural}.",
            )
        case "motion":
            return Question(
                kind=kind,
                text=f"Which way do the {noun} move?",
                answer=f"The {noun} move {event.motion}.",
            )
        case "count":
            one = event.count == "one"
            there = f"is one {event.colour} shape" if one else f"are {event.count} {noun}"
            return Question(kind=kind, text=f"How many {noun} are there?", answer=f"There {there}.")
    raise ValueError(f"no localized question of kind {kind!r}; known: {LOCALIZED_KINDS}")


def comprehensive_question(events: Sequence[Event], kind: str, at: int, other: int = 0) -> Question:
    """A question that needs the whole video: its `events` in order, asked about number `at`.

    `after` and `before` ask for the neighbour of event `at`; `order` which of `at` and `other`
    comes first; `first` and `last` ignore both. IndexError where event `at` has no neighbour.
    """
    noun = events[at].name
    match kind:
        case "after":
            return Question(
                kind=kind,
                text=f"What comes right after the {noun}?",
                answer=f"The {events[at + 1].name} come right after the {noun}.",
            )
        case "before":
            if at < 1:  # else -1 would name the last event
                raise IndexError("nothing comes before the first event")
            return Question(
                kind=kind,
                text=f"What comes right before the {noun}?",
                answer=f"The {events[at - 1].name} come right before the {noun}.",
            )
        case "order":
            first = events[min(at, other)].name
            return Question(
                kind=kind,
                text=f"Which come first, the {noun} or the {events[other].name}?",
                answer=f"The {first} come first.",
            )
        case "first":
            return Question(
                kind=kind,
                text="What comes first in the video?",
                answer=f"The {events[0].name} come first.",
            )
        case "last":
            return Question(
                kind=kind,
                text="What comes last in the video?",
                answer=f"The {events[-1].name} come last.",
            )
    raise ValueError(f"no comprehensive question of kind {kind!r}; known: {COMPREHENSIVE_KINDS}")
