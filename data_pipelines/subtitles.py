"""Subtitles of a video, with their times: from .srt files beside it and from inside it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av

from data_pipelines.errors import InputError
from data_pipelines.video_files import VideoPath

# Those that are text. The others are pictures of it.
TEXT_CODECS = ("subrip", "srt", "mov_text", "webvtt", "ass", "ssa", "text")
# An event of ASS has eight fields before its text.
ASS_FIELDS = 8
LANGUAGE = re.compile(r"\.([A-Za-z]{2,3}([-_][A-Za-z]+)?)$")
ASS_TAGS = re.compile(r"\{\\[^}]*\}")


class Line(NamedTuple):
    """One subtitle: seconds from the first frame of the video, and its text, markup as it is."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Track:
    """One language or version.

    Attributes:
      source: the file's name, or "stream 2" for one inside the video.
      language: as the file says it; None where it does not.
      lines: by start.
    """

    source: str
    language: str | None
    lines: tuple[Line, ...]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Track":
        """What `dataclasses.asdict` made of it, and JSON of that."""
        return cls(**{**content, "lines": tuple(Line(*line) for line in content["lines"])})

    def between(self, start: float, end: float) -> tuple[Line, ...]:
        """The lines that are shown at any moment of `start <= time < end`."""
        return tuple(line for line in self.lines if line.start < end and line.end > start)


def files_by_video(folder: VideoPath) -> dict[str, list[VideoPath]]:
    """The .srt files of a folder, by the name without suffix of the video they belong to.

    That is their own name, or what is before a language in it: movie.en.srt is of movie.mp4 too.
    """
    found: dict[str, list[VideoPath]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".srt" and not path.name.startswith("."):
            stems = {path.stem, LANGUAGE.sub("", path.stem)}
            for stem in stems:
                found.setdefault(stem, []).append(path)
    return found


def read_file(path: Path) -> Track:
    """Reads an .srt file.

    Raises:
      InputError: it cannot be read, or holds no subtitle.
    """
    told = LANGUAGE.search(path.stem)
    tracks = _tracks(path, 0.0)
    if not tracks or not tracks[0].lines:
        raise InputError(f"{path}: no subtitle in it; check that it is an .srt file")
    return Track(source=path.name, language=told and told[1], lines=tracks[0].lines)


def read_inside(video: Path | str, first_frame: float) -> list[Track]:
    """Reads the text subtitles inside a video.

    Args:
      video: the file.
      first_frame: the container's time of the first frame, which subtitles count from here.

    Raises:
      InputError: the file cannot be read.
    """
    return [track for track in _tracks(video, first_frame) if track.lines]


def _tracks(path: Path | str, first_frame: float) -> list[Track]:
    try:
        with av.open(str(path)) as container:
            streams = [s for s in container.streams.subtitles if s.codec.name in TEXT_CODECS]
            lines: dict[int, list[Line]] = {stream.index: [] for stream in streams}
            for packet in container.demux(streams) if streams else ():
                if packet.size == 0 or packet.pts is None:
                    continue
                start = float(packet.pts * packet.time_base) - first_frame
                length = float((packet.duration or 0) * packet.time_base)
                text = _text(bytes(packet), packet.stream.codec.name)
                if text:
                    lines[packet.stream_index].append(Line(start, start + length, text))
            return [
                Track(
                    source=f"stream {stream.index}",
                    language=stream.language,
                    lines=tuple(sorted(lines[stream.index])),
                )
                for stream in streams
            ]
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: its subtitles cannot be read: {reason}") from error


def _text(data: bytes, codec: str) -> str:
    if codec == "mov_text":  # two bytes of length, the text, and boxes of style
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    text = data.decode("utf-8", errors="replace")
    if codec in ("ass", "ssa"):
        fields: Sequence[str] = text.split(",", ASS_FIELDS)
        text = ASS_TAGS.sub("", fields[-1]).replace("\\N", "\n")
    return text.strip()
