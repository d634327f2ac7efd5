"""Which frames of a video are used: plain functions from frame times to frame numbers."""

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_pipelines.errors import InputError

Times = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


def uniform(count_total: int, count: int) -> Numbers:
    """Returns `count` positions spread over `count_total` frames, both ends included.

    Positions are truncated, not rounded, as in the LLaVA code; with `count > count_total` they
    repeat.

    Returns:
      int64 [count], ascending.

    Raises:
      InputError: either count is below 1.
    """
    if count_total < 1 or count < 1:
        raise InputError(f"cannot take {count} of {count_total} frames; both must be at least 1")
    return np.linspace(0, count_total - 1, count, dtype=np.int64)


def spread(numbers: npt.ArrayLike, count: int) -> Numbers:
    """Takes `count` of the given frame numbers, evenly by position; all if there are fewer.

    Returns:
      int64 [min(count, len(numbers))], in the order given.

    Raises:
      InputError: `count` is below 1.
    """
    numbers_F = np.asarray(numbers, dtype=np.int64)
    if count < 1:
        raise InputError(f"cannot take {count} frames; the count must be at least 1")
    if len(numbers_F) <= count:
        return numbers_F
    return numbers_F[uniform(len(numbers_F), count)]


def inside(times_F: Times, start: float, end: float) -> Numbers:
    """Returns the positions of frames with `start <= time < end` (seconds), int64, ascending."""
    return np.flatnonzero((times_F >= start) & (times_F < end)).astype(np.int64)


def outside(times_F: Times, start: float, end: float) -> Numbers:
    """Returns the positions of the frames that `inside` leaves, int64, ascending."""
    return np.flatnonzero((times_F < start) | (times_F >= end)).astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FramePolicy:
    """Which frames of a whole video are kept.

    Attributes:
      kind: "fps" keeps `fps` frames a second, but never more than `max_frames`: a longer video
        gets `max_frames` spread over all its frames, as LLaVA-Video samples. "uniform" always
        spreads `max_frames`, or keeps all frames if there are fewer.
      fps: frames a second for kind "fps"; not used by "uniform".
      max_frames: the most frames kept of one video.
    """

    kind: Literal["fps", "uniform"] = "fps"
    fps: float = 1.0
    max_frames: int = 64

    def __post_init__(self) -> None:
        if self.kind not in ("fps", "uniform"):
            raise InputError(f"frame policy kind {self.kind!r}: must be 'fps' or 'uniform'")
        if not 0 < self.fps < float("inf"):
            raise InputError(f"frame policy fps {self.fps}: must be a positive number")
        if self.max_frames < 1:
            raise InputError(f"frame policy max_frames {self.max_frames}: must be at least 1")

    def choose(self, times_F: Times) -> Numbers:
        """Returns the numbers of the frames to keep, int64, strictly ascending (none repeats).

        Args:
          times_F: time of every frame in seconds, ascending from 0.

        Raises:
          InputError: there are no frames.
        """
        if len(times_F) == 0:
            raise InputError("cannot choose from a video without frames")
        if self.kind == "fps":
            numbers = _nearest(times_F, self.fps)
            if len(numbers) <= self.max_frames:
                return numbers
        return np.unique(uniform(len(times_F), self.max_frames))


def _nearest(times_F: Times, fps: float) -> Numbers:
    """The frames nearest to 0, 1/fps, 2/fps ... seconds, whatever the source's frame rate."""
    # A last frame that should lie on a step may lie a rounding error before it.
    steps = int(np.floor(times_F[-1] * fps + 1e-6))
    grid = np.arange(steps + 1) / fps
    middles = (times_F[1:] + times_F[:-1]) / 2
    return np.unique(np.searchsorted(middles, grid)).astype(np.int64)
