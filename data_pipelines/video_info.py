"""What a FrameStore knows of a video without reading its frames."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.prompts import FrameTimes
from data_pipelines.sampling import FramePolicy


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo:
    """One stored video.

    Attributes:
      names: its files at build time, relative to the folder that held all the videos.
      duration: seconds.
      fps: average frames a second of the source.
      times_F: float64 [F], seconds, of the stored frames.
      numbers_F: int64 [F], their frame numbers in the source.
      reference_times_F: float64 [F], the seconds that the authors' prompts would tell of them.
    """

    names: tuple[str, ...]
    duration: float
    fps: float
    times_F: npt.NDArray[np.float64]
    numbers_F: npt.NDArray[np.int64]
    reference_times_F: npt.NDArray[np.float64]

    @classmethod
    def from_entry(cls, entry: dict[str, Any], frame_policy: dict[str, Any]) -> "VideoInfo":
        """From a video's entry in the store's manifest and the policy that chose its frames."""
        numbers_F = np.array(entry["numbers"], dtype=np.int64)
        # The rate is frames by duration, so this is exact; a single frame may have no duration.
        count = round(entry["fps"] * entry["duration"]) or 1
        policy = FramePolicy(**frame_policy)
        return cls(
            names=tuple(entry["names"]),
            duration=entry["duration"],
            fps=entry["fps"],
            times_F=np.array(entry["times"], dtype=np.float64),
            numbers_F=numbers_F,
            reference_times_F=policy.reference_times(numbers_F, count, entry["fps"]),
        )

    def told_times(self, kind: FrameTimes) -> npt.NDArray[np.float64]:
        """The seconds of the stored frames that prompts tell, float64 [F]."""
        return self.reference_times_F if kind == "reference" else self.times_F
