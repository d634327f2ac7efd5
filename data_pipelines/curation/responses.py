"""Which frames each answer of a pair is made from.

`irrelevant` (localized): the segment's frames against as many from outside it. `incomplete`
(comprehensive): the dense frames of the whole video against a sparse few of them. Both are
positions among the stored frames of one video.
"""

from dataclasses import dataclass

import numpy as np

from data_pipelines.sampling import inside, outside, spread


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Frames shown for the chosen and the rejected answer, and what the difference is called."""

    negative: str
    chosen: np.ndarray
    rejected: np.ndarray


def irrelevant(
    times_F: np.ndarray, segment: tuple[float, float], frames: int, margin: float
) -> Sides | None:
    """The segment against the rest of the video, at least `margin` seconds away from it.

    The margin keeps an event that runs over the segment's end out of the rejected side. None if
    either side has no frame.
    """
    start, end = segment
    seen = spread_or_empty(inside(times_F, start, end), frames)
    unseen = spread_or_empty(outside(times_F, start - margin, end + margin), frames)
    if not len(seen) or not len(unseen):
        return None
    return Sides(negative="irrelevant", chosen=seen, rejected=unseen)


def incomplete(stored: int, dense: int, sparse: int) -> Sides:
    """`dense` frames over the whole video against `sparse` of those."""
    seen = spread(np.arange(stored), dense)
    return Sides(negative="incomplete", chosen=seen, rejected=spread(seen, sparse))


def spread_or_empty(positions: np.ndarray, count: int) -> np.ndarray:
    """`count` of the positions, evenly; none of none."""
    return spread(positions, count) if len(positions) else positions
