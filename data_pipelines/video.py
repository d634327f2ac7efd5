"""Exact decoding: frame i is the i-th a player shows, with variable rates and edit lists too."""

import dataclasses
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from data_pipelines.artefacts import file_sha256
from data_pipelines.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# A header's duration is rounded by some writers; a file that ends this much earlier was cut.
CUT_OFF_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VideoIndex:
    """Where every presentable frame of a video lies.

    Attributes:
      path: the file.
      times_F: float64 [F], seconds from the first frame, strictly ascending.
      pts_F: int64 [F], presentation time stamps in the stream's own units.
      keyframes_F: bool [F], frames at which decoding can begin.
      start: the container's time of the first frame, seconds.
      duration: seconds from the first frame to the end of the last.
      fps: average frames a second.
    """

    path: str
    times_F: npt.NDArray[np.float64]
    pts_F: npt.NDArray[np.int64]
    keyframes_F: npt.NDArray[np.bool_]
    start: float
    duration: float
    fps: float


class _Packet(NamedTuple):
    pts: int
    duration: int
    keyframe: bool
    hidden: bool


def video_id(path: Path | str) -> str:
    """Returns 16 hex digits of the sha256 of the file. Raises InputError if it is unreadable."""
    return file_sha256(path)[:16]


def read_index(path: Path | str) -> VideoIndex:
    """Reads the time of every frame from the packet headers, without decoding.

    Containers count packets that are never shown (edit lists), and an average rate says nothing
    about a variable one, so neither is used. Frames that share a time stamp count once.

    Raises:
      InputError: the file is missing, empty, not a video, without pictures, cut off or damaged.
    """
    size = _file_size(path)
    with _open(path) as container:
        stream = _video_stream(path, container)
        packets: list[_Packet] = []
        start, end = float("inf"), float("-inf")
        try:
            # All streams, because the header's duration is that of the longest one.
            for packet in container.demux():
                if packet.size == 0:
                    continue
                if packet.is_corrupt:
                    raise InputError(
                        f"{path}: cut off or damaged: a packet is incomplete; fetch it again"
                    )
                if packet.pts is None:
                    if packet.stream_index == stream.index:
                        raise InputError(
                            f"{path}: frames carry no presentation times; remux it to .mp4 or .mkv"
                        )
                    continue
                seconds, length = float(packet.time_base), packet.duration or 0
                if not packet.is_discard:
                    start = min(start, packet.pts * seconds)
                    end = max(end, (packet.pts + length) * seconds)
                if packet.stream_index == stream.index:
                    packets.append(
                        _Packet(packet.pts, length, packet.is_keyframe, packet.is_discard)
                    )
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: damaged: {_reason(error)}; fetch it again") from error
        # A header that comes first survives the loss of the data it points to.
        if any(entry.pos + entry.size > size for entry in stream.index_entries):
            raise InputError(f"{path}: cut off: its index points behind the end; fetch it again")
        declared = (container.duration or 0) / av.time_base
        # Matroska counts its duration from zero, others from the first packet.
        covered = end - (min(start, 0.0) if "matroska" in container.format.name else start)
        if declared - covered > CUT_OFF_SECONDS:
            raise InputError(
                f"{path}: cut off: the header says {declared:.2f} s, the data ends after "
                f"{max(covered, 0):.2f} s; fetch it again"
            )
        assert stream.time_base is not None
        return _index(path, packets, stream.time_base)


def decode_frames(
    index: VideoIndex, numbers: Sequence[int] | npt.NDArray[np.int64], threads: int = 0
) -> Iterator[npt.NDArray[np.uint8]]:
    """Decodes frames, each uint8 [height, width, 3] RGB, turned upright as a player does.

    Only the stretches from the keyframe before each frame are decoded.

    Args:
      index: from `read_index`.
      numbers: frame numbers, strictly ascending, within the index.
      threads: decoder threads; 0 lets the decoder choose. Pixels do not depend on it.

    Raises:
      ValueError: `numbers` are not ascending or out of range.
      InputError: a frame cannot be decoded whole.
    """
    wanted = np.asarray(numbers, dtype=np.int64)
    if len(wanted) and (
        np.any(np.diff(wanted) <= 0) or wanted[0] < 0 or wanted[-1] >= len(index.pts_F)
    ):
        raise ValueError(f"numbers must ascend within 0..{len(index.pts_F) - 1}")
    keyframe_pts = index.pts_F[index.keyframes_F]
    with _open(index.path) as container:
        stream = _video_stream(index.path, container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        # Without this a decoder paints over damage with neighbouring pixels and says nothing.
        stream.codec_context.options = {"err_detect": "explode"}
        try:
            frames = container.decode(stream)
            reached = int(index.pts_F[0])
            for number in wanted:
                target = int(index.pts_F[number])
                before = keyframe_pts[: np.searchsorted(keyframe_pts, target, side="right")]
                sought = len(before) > 0 and int(before[-1]) > reached
                if sought:
                    container.seek(int(before[-1]), stream=stream)
                    frames = container.decode(stream)
                frame = _next_at(frames, target)
                if frame is None and sought:
                    # Some containers seek by decode time and land late; the start is always safe.
                    container.seek(int(index.pts_F[0]), stream=stream)
                    frames = container.decode(stream)
                    frame = _next_at(frames, target)
                if frame is None or frame.is_corrupt:
                    raise InputError(
                        f"{index.path}: damaged: frame {number} at {index.times_F[number]:.3f} s "
                        "is in the index but cannot be decoded; fetch or encode it again"
                    )
                reached = target
                rgb = frame.to_ndarray(format="rgb24")
                # The rotation is counter-clockwise, like rot90's.
                yield np.rot90(rgb, k=round(frame.rotation / 90) % 4)
        except av.error.FFmpegError as error:
            raise InputError(
                f"{index.path}: damaged: {_reason(error)}; fetch or encode it again"
            ) from error


def _index(path: Path | str, packets: list[_Packet], time_base: Fraction) -> VideoIndex:
    packets.sort(key=lambda packet: packet.pts)
    # Frames before the first keyframe (a recording that began in the middle) cannot be shown. A
    # keyframe that an edit list hides still serves the frames after it.
    start = next((packet.pts for packet in packets if packet.keyframe), None)
    by_pts = {p.pts: p for p in packets if start is not None and p.pts >= start and not p.hidden}
    if not by_pts:
        raise InputError(f"{path}: no frame that can be shown; encode it again")
    shown = list(by_pts.values())
    pts_F = np.array([packet.pts for packet in shown], dtype=np.int64)
    times_F = (pts_F - pts_F[0]) * time_base.numerator / time_base.denominator
    last = float(shown[-1].duration * time_base)
    if last <= 0 and len(shown) > 1:
        last = float(np.median(np.diff(times_F)))
    duration = float(times_F[-1]) + last
    return VideoIndex(
        path=str(path),
        times_F=times_F,
        pts_F=pts_F,
        keyframes_F=np.array([packet.keyframe for packet in shown], dtype=np.bool_),
        start=float(shown[0].pts * time_base),
        duration=duration,
        fps=len(shown) / duration if duration > 0 else 0.0,
    )


def _next_at(frames: Iterator["VideoFrame"], target: int) -> "VideoFrame | None":
    """The frame stamped `target`, or None when the decoder passes it or ends."""
    for frame in frames:
        if frame.pts is not None and frame.pts >= target:
            return frame if frame.pts == target else None
    return None


def _file_size(path: Path | str) -> int:
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise InputError(f"{path}: file is empty; fetch it again")
    return size


def _open(path: Path | str) -> "InputContainer":
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        if _begins_as_mp4(Path(path)):
            raise InputError(
                f"{path}: cut off or damaged: an mp4 without its index (moov); fetch it again"
            ) from error
        raise InputError(f"{path}: not a video that can be read: {_reason(error)}") from error


def _begins_as_mp4(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _video_stream(path: Path | str, container: "InputContainer") -> "VideoStream":
    stream = container.streams.best("video")
    # A cover picture of a sound file passes as a video of one frame.
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise InputError(f"{path}: no video stream; leave this file out")
    return stream  # type: ignore[return-value]


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
