"""Where a video is cut for localized questions."""

import itertools
import math
from collections.abc import Iterable

import numpy as np

from data_pipelines.frames import FrameStore

THUMBNAIL = 16  # pixels a side that frames are compared at
FRAMES_AT_ONCE = 64


def uniform_segments(duration: float, seconds: float) -> list[tuple[float, float]]:
    """Segments (start, end) of equal length, `duration / seconds` of them, rounded.

    A segment lasts between half and one and a half times `seconds`; a video shorter than that is
    one segment.
    """
    count = max(1, math.ceil(duration / seconds - 0.5))
    length = duration / count
    return [(i * length, (i + 1) * length) for i in range(count)]


def shot_segments(
    times_F: np.ndarray, changes_F: np.ndarray, duration: float, seconds: float, threshold: float
) -> list[tuple[float, float]]:
    """Segments (start, end) that begin where the picture changes at once.

    Args:
      times_F: seconds of the stored frames, float [F], ascending.
      changes_F: how much each frame differs from the one before it, float [F], 0 to 1.
      duration: seconds of the whole video.
      seconds: a shot shorter than half of it joins the one before it; one longer than one and a
        half times it is cut evenly, as a whole video is by `uniform_segments`.
      threshold: a change greater than this begins a shot.
    """
    cuts = [0.0]
    for time in times_F[1:][changes_F[1:] > threshold].tolist():
        if time - cuts[-1] >= seconds / 2 and duration - time >= seconds / 2:
            cuts.append(time)
    segments = []
    for start, end in itertools.pairwise([*cuts, duration]):
        parts = uniform_segments(end - start, seconds)
        segments += [(start + one, start + other) for one, other in parts]
    return segments


def changes_of(store: FrameStore, video_id: str) -> np.ndarray:
    """How much each stored frame differs from the one before it, float64 [F]; 0 for the first.

    The mean difference of grey levels at a small size, as a share of the greatest there can be.
    """
    count = len(store.info(video_id).times_F)
    thumbnails = _thumbnails(store, video_id, count)
    small_FHW = np.concatenate(list(thumbnails)) if count else np.zeros((0, 1, 1))
    differences = np.abs(np.diff(small_FHW, axis=0)).mean(axis=(1, 2)) / 255.0
    return np.concatenate([[0.0], differences])


def _thumbnails(store: FrameStore, video_id: str, count: int) -> Iterable[np.ndarray]:
    for first in range(0, count, FRAMES_AT_ONCE):
        positions = np.arange(first, min(count, first + FRAMES_AT_ONCE))
        grey_FHW = store.frames(video_id, positions).mean(axis=-1)
        side = max(1, grey_FHW.shape[1] // THUMBNAIL)
        whole = grey_FHW.shape[1] // side * side
        parts = grey_FHW[:, :whole, :whole]
        blocks = parts.reshape(len(parts), whole // side, side, whole // side, side)
        yield blocks.mean(axis=(2, 4))
