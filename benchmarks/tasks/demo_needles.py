"""A haystack and needles for the demo's model: a synthetic film, and pictures of what it lacks."""

import numpy as np

from benchmarks.tasks.needles import Needle
from data_pipelines.synthetic import (
    EVENT_SECONDS,
    Shown,
    draw,
    draw_events,
    draw_scene,
    draw_timeline,
)
from data_pipelines.synthetic_events import COLOURS, Event, localized_question

NEEDLE_COLOURS = COLOURS[:3]  # the film shows the others only
KINDS = ("ceiling", "floor")


def demo_haystack(frames: int, seed: int) -> np.ndarray:
    """The film, one frame a second: uint8 [frames, side, side, 3]."""
    rng = np.random.default_rng([seed, 0])
    scene = draw_scene(rng)
    events: list[Event] = []
    while EVENT_SECONDS[0] * len(events) < frames:  # so that they fill the film
        drawn = draw_events(rng, len(COLOURS))
        events += [e for e in drawn if not {e.colour, e.ceiling, e.floor} & set(NEEDLE_COLOURS)]
    timeline = draw_timeline(rng, events)
    return np.stack([draw(scene, timeline, float(time)) for time in range(frames)])


def demo_needles(seed: int) -> list[Needle]:
    """A needle for each colour that the film lacks and each kind of question."""
    rng = np.random.default_rng([seed, 1])
    drawn = {event.colour: event for event in draw_events(rng, len(COLOURS))}
    needles = []
    for colour in NEEDLE_COLOURS:
        shown = Shown(event=drawn[colour], start=0.0, end=2.0)
        picture = draw(draw_scene(rng), [shown], 1.0)
        for kind in KINDS:
            question = localized_question(drawn[colour], kind)
            needles.append(
                Needle(picture=picture, question=f"\n{question.text}", answer=question.answer)
            )
    return needles
