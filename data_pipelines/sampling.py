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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """What the authors' loaders return of a video.

    Attributes:
      numbers_F: int64 [F], frame numbers, ascending; some repeat where the video has too few.
      times_F: float64 [F], what their prompts tell as the seconds of these frames.
      duration: seconds of the whole video, by its frame rate.
    """

    numbers_F: Numbers
    times_F: Times
    duration: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FramePolicy:
    """Which frames of a whole video are kept, by the rules of LLaVA-Video and LongVA.

    Attributes:
      kind: "fps" takes every n-th frame, n being the whole number nearest to what `fps` asks for;
        when those are more than `max_frames`, it takes `max_frames` spread over all frames. The
        authors' training scripts do this at one frame a second. "uniform" always spreads
        `max_frames`, as LongVA and the evaluation harness do; "force_sample" is LLaVA-Video's
        name for the same rule.
      fps: frames a second for kind "fps"; not used by the others.
      max_frames: the most frames kept of one video.
    """

    kind: Literal["fps", "uniform", "force_sample"] = "fps"
    fps: float = 1.0
    max_frames: int = 64

    def __post_init__(self) -> None:
        if self.kind not in ("fps", "uniform", "force_sample"):
            raise InputError(
                f"frame policy kind {self.kind!r}: must be 'fps', 'uniform' or 'force_sample'"
            )
        if not 0 < self.fps < float("inf"):
            raise InputError(f"frame policy fps {self.fps}: must be a positive number")
        if self.max_frames < 1:
            raise InputError(f"frame policy max_frames {self.max_frames}: must be at least 1")

    def sample(self, count: int, rate: float) -> Sample:
        """Returns the frames of a video, and the times that the authors' prompts tell of them.

        Args:
          count: frames of the video.
          rate: its average frames a second; 0 for a single frame without a duration.

        Raises:
          InputError: there are no frames.
        """
        if count < 1:
            raise InputError("cannot choose from a video without frames")
        step = self._step(count, rate)
        if step is None:
            numbers_F = uniform(count, self.max_frames)
        else:
            numbers_F = np.arange(0, count, step, dtype=np.int64)
        times_F = self.reference_times(numbers_F, count, rate)
        return Sample(numbers_F=numbers_F, times_F=times_F, duration=count / rate if rate else 0.0)

    def choose(self, count: int, rate: float) -> Numbers:
        """Returns the frame numbers of `sample` once each, int64, strictly ascending."""
        return np.unique(self.sample(count, rate).numbers_F)

    def reference_times(self, numbers: npt.ArrayLike, count: int, rate: float) -> Times:
        """Returns what the authors' prompts tell as the seconds of frames of a video, float64.

        A frame's number is divided by the frame rate where frames are spread, but by n where
        every n-th is taken. At `fps=1` the latter is seconds too, by the rounded rate. At any
        other `fps` it counts the frames taken: at `fps=2` the frame at 3 s is told to lie at 6 s.
        The authors only use 1; with another `fps`, tell exact times.

        Args:
          numbers: frame numbers [F], of `sample` or any others.
          count: frames of the video.
          rate: its average frames a second.
        """
        step = self._step(count, rate)
        divisor = rate if step is None else step
        return np.asarray(numbers, np.int64) / (divisor or 1.0)

    def _step(self, count: int, rate: float) -> int | None:
        """n, where every n-th frame is taken; None where frames are spread."""
        if self.kind != "fps":
            return None
        # A rate that was computed may lie a rounding error off a half, which decides the step.
        # Halves go to the even number, as in the authors' code. Their step of 0 is an error.
        step = max(round(round(rate / self.fps, 9)), 1)
        return step if -(-count // step) <= self.max_frames else None
