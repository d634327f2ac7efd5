"""Videos that are decoded when they are asked about: for tasks that choose frames by themselves."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.images import ImagePolicy
from data_pipelines.video import VideoIndex, decode_frames, read_index
from data_pipelines.video_info import VideoInfo


class VideoFiles:
    """Reads like a `FrameStore` in which every frame of every video is stored; ids are names."""

    lossy = False

    def __init__(self, folder: Path, files: Mapping[str, Path], images: ImagePolicy):
        """Args: the folder, for messages; the files by name; how a frame becomes a square."""
        self.path = folder
        self._files = dict(files)
        self._images = images
        self.index = cache(self._index)

    @property
    def videos(self) -> list[str]:
        """Names of the files."""
        return list(self._files)

    @property
    def policies(self) -> dict[str, Any]:
        """As those of a store; the rule for frames is the task's own."""
        return {"frame_policy": {"kind": "task"}, "image_policy": asdict(self._images)}

    def info(self, video: str) -> VideoInfo:
        """Describes one video. InputError: it cannot be read."""
        index = self.index(video)
        numbers_F = np.arange(len(index.times_F), dtype=np.int64)
        return VideoInfo(
            names=(video,),
            duration=index.duration,
            fps=index.fps,
            times_F=index.times_F,
            numbers_F=numbers_F,
            reference_times_F=numbers_F / (index.fps or 1.0),
        )

    def frames(self, video: str, positions: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Frames by number, uint8 [F, S, S, 3], in the order of `positions`."""
        numbers_F, back_F = np.unique(np.asarray(positions, np.int64), return_inverse=True)
        decoded = decode_frames(self.index(video), numbers_F)
        return np.stack([self._images.prepare(rgb) for rgb in decoded])[back_F]

    def _index(self, video: str) -> VideoIndex:
        return read_index(self._files[video])
