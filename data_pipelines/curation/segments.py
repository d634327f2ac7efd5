"""Where a video is cut for localized questions."""

import math


def uniform_segments(duration: float, seconds: float) -> list[tuple[float, float]]:
    """Segments (start, end) of equal length, `duration / seconds` of them, rounded.

    A segment lasts between half and one and a half times `seconds`; a video shorter than that is
    one segment.
    """
    count = max(1, math.ceil(duration / seconds - 0.5))
    length = duration / count
    return [(i * length, (i + 1) * length) for i in range(count)]
