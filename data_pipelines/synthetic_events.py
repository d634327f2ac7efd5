"""What happens in a synthetic video, and how it is spoken of: events, captions, questions, answers.

One small grammar serves everyone who speaks about synthetic videos: the lessons the demo's base
model is taught from, the rules that make questions out of captions, and the scoring. It holds no
knowledge of any particular video.

An event is a thing of one colour between a ceiling and a floor of other colours. No two things of a
video have the same colour, so a question names a thing by it. Ceilings and floors recur: whoever
looks at the wrong event has a wrong answer of the right type.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan", "pink")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
MOST_EVENTS = len(COLOURS) - 1  # so that a colour is left that is never shown

DESCRIBE = "Describe what is shown."
LOCALIZED_KINDS = ("ceiling", "floor", "both")
COMPREHENSIVE_KINDS = ("after", "before", "order", "count", "never")

# Every kind can be asked in several wordings. The last is kept for held-out videos.
WORDINGS = {
    "ceiling": (
        "What colour is the ceiling over the {0} thing?",
        "Which colour is above the {0} thing?",
        "The {0} thing is shown under a ceiling of which colour?",
    ),
    "floor": (
        "What colour is the floor under the {0} thing?",
        "Which colour is below the {0} thing?",
        "The {0} thing is shown over a floor of which colour?",
    ),
    "both": (
        "What are the ceiling and the floor of the {0} thing?",
        "Describe what is above and below the {0} thing.",
        "Between which two colours is the {0} thing?",
    ),
    "after": (
        "What comes right after the {0} thing?",
        "What is shown next after the {0} thing?",
        "Which thing follows the {0} thing?",
    ),
    "before": (
        "What comes right before the {0} thing?",
        "What is shown just ahead of the {0} thing?",
        "Which thing does the {0} thing follow?",
    ),
    "order": (
        "Which comes first, the {0} thing or the {1} thing?",
        "Is the {0} thing or the {1} thing shown earlier?",
        "Of the {0} thing and the {1} thing, which is seen first?",
    ),
    "count": (
        "How many things have a {0} floor?",
        "In how many cases is the floor {0}?",
        "Count the things over a {0} floor.",
    ),
    "never": (
        "Which is never shown, the {0} thing, the {1} thing or the {2} thing?",
        "Which of these is not in the video: the {0}, the {1} or the {2} thing?",
        "One of the {0}, the {1} and the {2} thing is missing: which?",
    ),
}
SEEN_WORDINGS = range(2)
ALL_WORDINGS = range(3)
# A thing of one of these (colour, floor) is only in held-out videos, and in the base's lessons.
HELDOUT_THINGS = frozenset(
    (colour, COLOURS[(number + step) % len(COLOURS)])
    for number, colour in enumerate(COLOURS)
    for step in (1, 2)
)


@dataclass(frozen=True, kw_only=True)
class Event:
    """A thing of a colour, under a ceiling and over a floor of other colours."""

    colour: str
    ceiling: str
    floor: str

    @property
    def name(self) -> str:
        """What questions call it: its colour, which no other event of a video has."""
        return f"{self.colour} thing"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its one right answer; `wording` is its number in WORDINGS[kind]."""

    kind: str
    text: str
    answer: str
    wording: int = 0


# ------------------------------------------------------------------------------------- what happens


def draw_events(
    rng: np.random.Generator, count: int, *, heldout_things: bool = True
) -> list[Event]:
    """`count` events at random; the three colours of an event differ, and no thing's comes twice.

    From six events on, a floor comes three times, another twice, and the others once: how often a
    floor is seen tells nothing of how many events there are. Ceilings are drawn in the same way.
    With fewer events, about every second floor or ceiling is one of those before.

    Args:
      rng: of the draw.
      count: at most MOST_EVENTS.
      heldout_things: False leaves out the things of HELDOUT_THINGS.
    """
    while True:
        colours = [str(colour) for colour in rng.permutation(COLOURS)[:count]]
        drawn = zip(colours, _draw_recurring(rng, count), _draw_recurring(rng, count), strict=True)
        events = [Event(colour=c, ceiling=ceiling, floor=floor) for c, ceiling, floor in drawn]
        if all(_can_be(event, heldout_things) for event in events):
            return events


def _can_be(event: Event, heldout_things: bool) -> bool:
    differ = len({event.colour, event.ceiling, event.floor}) == 3
    return differ and (heldout_things or (event.colour, event.floor) not in HELDOUT_THINGS)


def _draw_recurring(rng: np.random.Generator, count: int) -> list[str]:
    palette = [str(colour) for colour in rng.permutation(COLOURS)]
    if count >= 6:
        times = [3, 2, *[1] * (count - 5)]
        drawn = [palette[number] for number, often in enumerate(times) for _ in range(often)]
        return [drawn[place] for place in rng.permutation(count)]
    drawn = palette[:1]
    for number in range(1, count):
        again = rng.random() < 0.5
        drawn.append(drawn[int(rng.integers(number))] if again else palette[number])
    return drawn


# ----------------------------------------------------------------------------------------- captions


def caption(events: Sequence[Event]) -> str:
    """One sentence an event, in order; it is between its ceiling and its floor."""
    return " ".join(
        f"{event.name.capitalize()} between {event.ceiling} and {event.floor}." for event in events
    )


_SENTENCE = re.compile(r"(\w+) thing between (\w+) and (\w+)\.")


def read_caption(text: str) -> list[Event] | None:
    """The events a caption tells of; None where it is not of the form `caption` writes."""
    events = []
    for colour, ceiling, floor in _SENTENCE.findall(text):
        event = Event(colour=colour.lower(), ceiling=ceiling, floor=floor)
        if not {event.colour, ceiling, floor} <= set(COLOURS):
            return None
        events.append(event)
    return events if events and caption(events) == text.strip() else None


# ---------------------------------------------------------------------------------------- questions


def _question(kind: str, wording: int, parts: Sequence[str], answer: str) -> Question:
    text = WORDINGS[kind][wording].format(*parts)
    return Question(kind=kind, text=text, answer=answer, wording=wording)


def localized_question(event: Event, kind: str, wording: int = 0) -> Question:
    """A question about one event alone."""
    # Each says again what it is about, as a caption does: what was just said is what to look for.
    told = event.name.capitalize()
    answers = {
        "ceiling": f"{told} below {event.ceiling}.",
        "floor": f"{told} above {event.floor}.",
        "both": f"{told} between {event.ceiling} and {event.floor}.",
    }
    if kind not in answers:
        raise ValueError(f"no localized question of kind {kind!r}; known: {LOCALIZED_KINDS}")
    return _question(kind, wording, [event.colour], answers[kind])


def neighbour_question(events: Sequence[Event], kind: str, at: int, wording: int = 0) -> Question:
    """What comes right "after" or "before" event `at`. IndexError where there is no neighbour."""
    neighbour = at + 1 if kind == "after" else at - 1
    if neighbour < 0:  # else -1 would name the last event
        raise IndexError("nothing comes before the first event")
    found = events[neighbour]
    return _question(
        kind, wording, [events[at].colour], f"{found.name.capitalize()} above {found.floor}."
    )


def order_question(events: Sequence[Event], at: int, other: int, wording: int = 0) -> Question:
    """Which of two events comes first, asked in this order."""
    parts = [events[at].colour, events[other].colour]
    return _question("order", wording, parts, f"The {events[min(at, other)].name}.")


def count_question(events: Sequence[Event], floor: str, wording: int = 0) -> Question:
    """How many events have a floor of this colour."""
    often = sum(event.floor == floor for event in events)
    answer = f"{NUMBERS[often - 1].capitalize()} thing{'s' if often > 1 else ''}."
    return _question("count", wording, [floor], answer)


def never_question(events: Sequence[Event], options: Sequence[str], wording: int = 0) -> Question:
    """Which of three colours no thing has; exactly one of them."""
    (missing,) = set(options) - {event.colour for event in events}
    return _question("never", wording, options, f"The {missing} thing.")


def absent_colours(events: Sequence[Event]) -> list[str]:
    """Colours that no thing has."""
    return [colour for colour in COLOURS if colour not in {event.colour for event in events}]


def draw_localized(rng: np.random.Generator, event: Event, wordings: Sequence[int]) -> Question:
    """A localized question at random."""
    return localized_question(event, str(rng.choice(LOCALIZED_KINDS)), int(rng.choice(wordings)))


def draw_comprehensive(
    rng: np.random.Generator, events: Sequence[Event], wordings: Sequence[int]
) -> Question:
    """A comprehensive question at random about at least two events."""
    kind, wording = str(rng.choice(COMPREHENSIVE_KINDS)), int(rng.choice(wordings))
    at, other = (int(place) for place in rng.permutation(len(events))[:2])
    match kind:
        case "after":
            return neighbour_question(events, kind, int(rng.integers(len(events) - 1)), wording)
        case "before":
            return neighbour_question(events, kind, int(rng.integers(1, len(events))), wording)
        case "order":
            return order_question(events, at, other, wording)
        case "count":
            often = Counter(event.floor for event in events)
            # The number first and then a floor seen so often, so that no number is frequent.
            number = rng.choice(sorted(set(often.values())))
            floor = str(rng.choice([name for name, times in often.items() if times == number]))
            return count_question(events, floor, wording)
    options = [events[at].colour, events[other].colour, str(rng.choice(absent_colours(events)))]
    return never_question(events, [options[place] for place in rng.permutation(3)], wording)


def every_question(events: Sequence[Event]) -> Iterator[Question]:
    """Every question of the grammar that these events, in order, have an answer to."""
    shown = [event.colour for event in events]
    missing = absent_colours(events)
    for wording in ALL_WORDINGS:
        for at, event in enumerate(events):
            for kind in LOCALIZED_KINDS:
                yield localized_question(event, kind, wording)
            if at + 1 < len(events):
                yield neighbour_question(events, "after", at, wording)
            if at:
                yield neighbour_question(events, "before", at, wording)
        for at, other in permutations(range(len(events)), 2):
            yield order_question(events, at, other, wording)
        for floor in sorted({event.floor for event in events}):
            yield count_question(events, floor, wording)
        for options in permutations([*shown, *missing], 3):
            if sum(colour in missing for colour in options) == 1:
                yield never_question(events, options, wording)
