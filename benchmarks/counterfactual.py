"""The grounding audit: the same questions with what they ask about taken away.

A model that answers from the frames falls to chance; one that guesses from the question does not.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.tasks.item import Item
from data_pipelines.sampling import uniform

VIEWS = {
    "removed": "without the frames of the segment that is asked about",
    "shuffled": "with the frames in another order",
    "blind": "without any frame",
}


def can_be_asked(item: Item, view: str) -> bool:
    """Whether the view takes away what the item needs; only then is falling to chance expected.

    `removed` needs a known segment. Another order takes nothing from a question about one segment.
    """
    if view == "removed":
        return item.segment is not None
    return view == "blind" or item.granularity == "comprehensive"


def positions_seen(
    item: Item, view: str, positions_F: np.ndarray, times_F: Sequence[float] | np.ndarray, seed: int
) -> np.ndarray:
    """The positions that are left of those shown, int [F'], in showing order.

    Args:
      item: what is asked; `can_be_asked`.
      view: one of VIEWS.
      positions_F: of the stored frames shown otherwise.
      times_F: seconds of all stored frames.
      seed: of the other order, with the item's id.
    """
    if view == "blind":
        return positions_F[:0]
    if view == "removed":
        assert item.segment is not None
        start, end = item.segment
        times = np.asarray(times_F)[positions_F]
        return positions_F[(times < start) | (times >= end)]
    rng = np.random.default_rng([seed, *item.id.encode()])
    order = np.arange(len(positions_F))
    while len(order) > 1 and np.array_equal(order, np.arange(len(order))):
        order = rng.permutation(len(order))
    return positions_F[order]


def segment_positions(item: Item, times_F: Sequence[float] | np.ndarray, most: int) -> np.ndarray:
    """The stored frames of the segment alone, at most so many, int [F']: where the answer is.

    Args:
      item: one with a segment.
      times_F: seconds of all stored frames.
      most: frames; taken uniformly from the segment.
    """
    assert item.segment is not None
    start, end = item.segment
    times = np.asarray(times_F)
    inside = np.flatnonzero((times >= start) & (times < end))
    return inside[uniform(len(inside), min(most, len(inside)))]
