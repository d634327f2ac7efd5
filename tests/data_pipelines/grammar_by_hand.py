"""The grammar of synthetic videos once more, written by hand and without the grammar's own code.

What a question asks is read from its words, and answered from the events: an oracle for everything
that draws questions.
"""

import re
from collections.abc import Sequence

from data_pipelines.synthetic_events import Event

# Kind, wording and words, in full; X stands for a colour.
WRITTEN = {
    ("ceiling", 0): "What colour is the ceiling over the X thing?",
    ("ceiling", 1): "Which colour is above the X thing?",
    ("ceiling", 2): "The X thing is shown under a ceiling of which colour?",
    ("floor", 0): "What colour is the floor under the X thing?",
    ("floor", 1): "Which colour is below the X thing?",
    ("floor", 2): "The X thing is shown over a floor of which colour?",
    ("both", 0): "What are the ceiling and the floor of the X thing?",
    ("both", 1): "Describe what is above and below the X thing.",
    ("both", 2): "Between which two colours is the X thing?",
    ("after", 0): "What comes right after the X thing?",
    ("after", 1): "What is shown next after the X thing?",
    ("after", 2): "Which thing follows the X thing?",
    ("before", 0): "What comes right before the X thing?",
    ("before", 1): "What is shown just ahead of the X thing?",
    ("before", 2): "Which thing does the X thing follow?",
    ("order", 0): "Which comes first, the X thing or the X thing?",
    ("order", 1): "Is the X thing or the X thing shown earlier?",
    ("order", 2): "Of the X thing and the X thing, which is seen first?",
    ("count", 0): "How many things have a X floor?",
    ("count", 1): "In how many cases is the floor X?",
    ("count", 2): "Count the things over a X floor.",
    ("never", 0): "Which is never shown, the X thing, the X thing or the X thing?",
    ("never", 1): "Which of these is not in the video: the X, the X or the X thing?",
    ("never", 2): "One of the X, the X and the X thing is missing: which?",
}
PATTERNS = {
    asked: re.compile(re.escape(words).replace("X", "([a-z]+)")) for asked, words in WRITTEN.items()
}
LOCALIZED = ("ceiling", "floor", "both")
WORDS_OF_COUNT = ("No things.", "One thing.", "Two things.", "Three things.", "Four things.")


def understand(question: str) -> tuple[str, int, list[str]]:
    """Kind, wording, and the colours that are named, in order; fails unless it is one question."""
    read = [
        (kind, wording, [str(name) for name in found.groups()])
        for (kind, wording), pattern in PATTERNS.items()
        if (found := pattern.fullmatch(question))
    ]
    assert len(read) == 1, (question, read)
    return read[0]


def right_answer(question: str, events: Sequence[Event]) -> str:
    """The one right answer; fails where there is none."""
    kind, _, named = understand(question)
    assert len(set(named)) == len(named), question
    order = [event.colour for event in events]
    assert len(set(order)) == len(order)
    if kind == "never":
        (missing,) = [name for name in named if name not in order]
        return f"The {missing} thing."
    if kind == "count":
        often = [event.floor for event in events].count(named[0])
        assert often, question
        return WORDS_OF_COUNT[often]
    at = [order.index(name) for name in named]
    event = events[at[0]]
    name = f"{event.colour.capitalize()} thing"
    match kind:
        case "ceiling":
            return f"{name} below {event.ceiling}."
        case "floor":
            return f"{name} above {event.floor}."
        case "both":
            return f"{name} between {event.ceiling} and {event.floor}."
        case "order":
            return f"The {order[min(at)]} thing."
    neighbour = at[0] + {"after": 1, "before": -1}[kind]
    assert 0 <= neighbour < len(events), question
    return f"{order[neighbour].capitalize()} thing above {events[neighbour].floor}."


def needed(question: str, events: Sequence[Event]) -> list[Event]:
    """The events that one must have seen: the one that is named, or all of them."""
    kind, _, named = understand(question)
    if kind in LOCALIZED:
        return [event for event in events if event.colour == named[0]]
    return list(events)
