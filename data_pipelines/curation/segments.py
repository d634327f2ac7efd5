"""Where a video is cut for localized questions."""

import math


def uniform_segments(duration: float, seconds: float) -> list[tuple[float, float]]:
    """Segments (start, end) of equal length, as near to `seconds` as divides the video."""
    count = max(1, math.ceil(duration / seconds - 0.5))
    length = duration / count
    return [(i * length, (i + 1) * length) for i in range(count)]
