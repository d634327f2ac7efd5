"""Which of a video's subtitles a Video-MME prompt holds, by the rule of lmms-eval 0.7.3.

The file is read as that harness reads it, not as `data_pipelines.subtitles` does: blocks are parted
by one empty line, and of a block with a known time only the newest counts.
"""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.protocols import SubtitleOrder, VideoFacts
from data_pipelines.errors import InputError
from data_pipelines.sampling import uniform

Block = tuple[float, float, str]  # seconds from and to, text on one line

# The markup of all subtitles of the data set; the harness drops those without it in silence.
_FONT = re.compile(r'<font color="white" size=".72c">(.*?)</font>')
_ANY_MARKUP = re.compile(r"<[^>]*>")


def subtitle_text(path: Path, video: VideoFacts, points: int, order: SubtitleOrder) -> str:
    """The subtitles that are shown at moments spread over the video, a line each.

    Args:
      path: an .srt file.
      video: whose frames they are of.
      points: how many moments; they need not be those of the frames shown. -1 for every frame.
      order: "set" is that of a Python set of block numbers, which is not always ascending, and only
        takes text in the markup that the data set has. "time" is ascending and takes all text.

    Raises:
      InputError: the file is damaged, or the video has no frames.
    """
    blocks = read_blocks(path)
    starts = np.array([int(start * video.fps) for start, _, _ in blocks], np.int64)
    ends = np.array([int(end * video.fps) for _, end, _ in blocks], np.int64)
    chosen: list[int] = []
    for frame in uniform(video.frames, video.frames if points == -1 else points):
        chosen += np.flatnonzero((starts <= frame) & (frame < ends)).tolist()
    if order == "time":
        texts = [_ANY_MARKUP.sub("", blocks[at][2]).strip() for at in sorted(set(chosen))]
        return "\n".join(text for text in texts if text)
    # The order of a set hangs on the order in which it was filled, too.
    found = [_FONT.search(blocks[at][2]) for at in list(set(chosen))]
    return "\n".join(match[1] for match in found if match)


@lru_cache(maxsize=4)  # the questions about a video come one after another
def read_blocks(path: Path) -> list[Block]:
    """The blocks of an .srt file in its order. InputError names a block with a bad time."""
    try:
        sections = path.read_text("utf-8").split("\n\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8: {error}; fetch it again") from error
    blocks: dict[tuple[float, float], str] = {}
    for section in sections:
        lines = section.split("\n")
        if section.strip() and len(lines) >= 3:
            try:
                start, end = (_seconds(time) for time in lines[1].split(" --> ")[:2])
            except ValueError as error:
                raise InputError(
                    f"{path}: {lines[1]!r} is no time of a subtitle, as in '00:00:01,000 --> "
                    "00:00:02,500'; fetch it again"
                ) from error
            blocks[start, end] = " ".join(lines[2:])
    return [(start, end, text) for (start, end), text in blocks.items()]


def _seconds(time: str) -> float:
    hours, minutes, rest = time.split(":")
    seconds, thousandths = rest.split(",")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(thousandths) / 1000
