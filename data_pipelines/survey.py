"""What storing videos would take, from their indexes and a few frames of some."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_pipelines import shards
from data_pipelines.errors import InputError
from data_pipelines.images import ImagePolicy
from data_pipelines.processes import Undone, run_all
from data_pipelines.sampling import FramePolicy
from data_pipelines.video import decode_frames, read_index
from data_pipelines.video_files import VideoPath, local_file

SAMPLED_VIDEOS = 3


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Sums over all files.

    Attributes:
      files: that can be stored.
      refused: (path, reason) of the others; damage shows only when they are decoded.
      hours: of video.
      frames: that would be stored.
      source_bytes: of the files.
      store_bytes, decode_seconds: of the store, and of making it with one worker; estimates from
        the frames that were tried.
      tried: how many.
    """

    files: int
    refused: tuple[tuple[VideoPath, str], ...]
    hours: float
    frames: int
    source_bytes: int
    store_bytes: float
    decode_seconds: float
    tried: int


class _Indexed(NamedTuple):
    path: VideoPath
    duration: float
    frames: int
    bytes: int


def survey(
    videos: Sequence[VideoPath],
    *,
    frame_policy: FramePolicy,
    image_policy: ImagePolicy,
    encoding: shards.Encoding,
    workers: int = 1,
    seconds: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Survey:
    """Reads the index of every video, and decodes one record of a short, a middle and a long one.

    Arguments are those of `build_store`. Nothing is left behind.

    Raises:
      InputError: no file can be read.
    """
    found: list[_Indexed] = []
    refused: list[tuple[VideoPath, str]] = []
    with tempfile.TemporaryDirectory(prefix="tpo_frames_") as name:
        folder = Path(name)
        index = partial(_index, folder=folder, policy=frame_policy)
        for done, (path, result) in enumerate(run_all(index, videos, workers, seconds=seconds), 1):
            if isinstance(result, Undone | str):
                refused.append((path, result if isinstance(result, str) else result.reason))
            else:
                found.append(result)
            if progress is not None:
                progress(done, len(videos), path.name)
        refused.sort(key=lambda one: str(one[0]))
        if not found:
            path, reason = refused[0]
            raise InputError(
                f"none of {len(videos)} files can be read; the first, {path}: {reason}"
            )
        found.sort(key=lambda one: (one.duration, str(one.path)))
        places = {len(found) * number // SAMPLED_VIDEOS for number in range(SAMPLED_VIDEOS)}
        parts: list[tuple[int, int, float]] = []
        for place in sorted(places):
            try:
                path = found[place].path
                parts.append(_try(path, folder, frame_policy, image_policy, encoding))
            except InputError:  # damaged behind its index: a build will say so
                continue
        tried = sum(part[0] for part in parts)
        frames = sum(one.frames for one in found)
        return Survey(
            files=len(found),
            refused=tuple(refused),
            hours=sum(one.duration for one in found) / 3600,
            frames=frames,
            source_bytes=sum(one.bytes for one in found),
            store_bytes=sum(part[1] for part in parts) / tried * frames if tried else float("nan"),
            decode_seconds=sum(part[2] for part in parts) / tried * frames
            if tried
            else float("nan"),
            tried=tried,
        )


def _index(path: VideoPath, folder: Path, policy: FramePolicy) -> _Indexed | str:
    file = Path(path)
    try:
        with local_file(path, folder) as file:
            index = read_index(file)
            frames = len(policy.choose(len(index.times_F), index.fps))
            return _Indexed(path, index.duration, frames, file.stat().st_size)
    except InputError as error:
        return str(error).removeprefix(f"{file}: ")


def _try(
    path: VideoPath,
    folder: Path,
    frame_policy: FramePolicy,
    image_policy: ImagePolicy,
    encoding: shards.Encoding,
) -> tuple[int, int, float]:
    """(frames, bytes, seconds) of a video's first record."""
    with local_file(path, folder) as file:
        index = read_index(file)
        numbers = frame_policy.choose(len(index.times_F), index.fps)[: shards.RECORD_FRAMES]
        shard = folder / "sample.array_record"
        start = time.monotonic()
        pixels = map(image_policy.prepare, decode_frames(index, numbers, threads=1))
        shards.write_shard(shard, "sample", index.times_F[numbers], numbers, pixels, encoding)
        spent = time.monotonic() - start
        size = shard.stat().st_size
        return len(numbers), size, spent
