"""Frames and subtitles in turn, as LongVideoBench's prompts have them in lmms-eval 0.7.3."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.tasks.tables import read_json
from data_pipelines.errors import InputError

FRAME_MARK = "<image>"
WIDTH = 1.0  # seconds; a shorter subtitle counts as if it were shown so long


class Span(NamedTuple):
    """One subtitle: from and to in seconds of its own clock, and its text."""

    start: float
    end: float
    text: str


def frame_times(duration: float, most: int) -> list[float]:
    """Seconds that the frames stand for: `most` of them evenly, or one for each whole second."""
    if duration > most:
        return [duration / most * number for number in range(most)]
    return [float(number) for number in range(int(duration))]


def frame_numbers(duration: float, fps: float, most: int) -> list[int]:
    """The frames that are shown: as many, but a whole number of frames apart, from the first on.

    Args:
      duration: seconds, as the data set tells them.
      fps: frames a second of the video.
      most: frames at most.

    Raises:
      InputError: the video is shorter than a second.
    """
    count = min(most, int(duration))
    if count < 1:
        raise InputError(
            f"a video of {duration} seconds: too short to take frames between subtitles"
        )
    step = int(int(duration * fps) / count)
    return [step * number for number in range(count)]


def read_spans(path: Path, duration: float) -> list[Span]:
    """Reads a subtitle file of either form.

    The one is {"timestamp": [start, end], "text"} in seconds, the other {"start", "end", "line"}
    with "HH:MM:SS.x". An end that is no decimal number (null, or a whole one) is the video's.

    Args:
      path: the JSON file, a list of subtitles.
      duration: seconds of the video.

    Raises:
      InputError: names the file and the subtitle that is wrong.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: must be a list of subtitles; fetch it again")
    spans = []
    for number, entry in enumerate(content, start=1):
        try:
            spans.append(_span(entry, duration))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: subtitle {number} is {str(entry)[:80]}; must have timestamp and text, or "
                "start, end and line"
            ) from error
    return spans


def _span(entry: dict[str, Any], duration: float) -> Span:
    if "timestamp" in entry:
        start, end = entry["timestamp"]
        return Span(start + 0.0, end if isinstance(end, float) else duration, entry["text"])
    return Span(_seconds(entry["start"]), _seconds(entry["end"]), entry["line"])


def _seconds(time: str) -> float:
    hours, minutes, seconds = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def interleave(times: Sequence[float], spans: Sequence[Span], video_start: float) -> str:
    """A line for each frame (`<image>`) and for each subtitle that a frame lies in.

    A subtitle stands after the frames up to its middle.

    Args:
      times: seconds of the frames, ascending.
      spans: the subtitles, in the order of the file.
      video_start: seconds at which the video begins on the clock of the subtitles.
    """
    lines: list[str] = []
    shown = 0
    for span in spans:
        start, end = span.start - video_start, span.end - video_start
        middle = (start + end) / 2
        while shown < len(times) and times[shown] <= middle:
            lines.append(FRAME_MARK)
            shown += 1
        if end - start < WIDTH:
            start, end = middle - WIDTH / 2, middle + WIDTH / 2
        if any(start < time < end for time in times):
            lines.append(span.text)
    return "\n".join([*lines, *[FRAME_MARK] * (len(times) - shown)])
