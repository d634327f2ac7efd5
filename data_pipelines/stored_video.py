"""One video of a FrameStore: what any worker does, on this machine or on another."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from data_pipelines import artefacts, shards, subtitles
from data_pipelines.errors import InputError
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.video import decode_frames, read_index, video_id
from data_pipelines.video_files import VideoPath, local_file


class Outcome(NamedTuple):
    """What came of a video."""

    path: VideoPath
    video_id: str | None  # None: not even readable
    reason: str | None  # None: stored
    frames: int = 0
    bytes: int = 0  # of the file


def shard_name(video_id: str) -> str:
    """File of a video's records, before all videos are known and numbered."""
    return f"{video_id}.array_record"


def note_name(video_id: str) -> str:
    """File of what the manifest will say of a video; it is there once the shard is whole."""
    return f"{video_id}.json"


def store_video(
    path: VideoPath,
    *,
    work: Path,
    done: VideoPath,
    frame_policy: FramePolicy,
    image_policy: ImagePolicy,
    encoding: shards.Encoding,
    threads: int,
) -> Outcome:
    """Decodes one video into a shard and, written last, a note about it.

    Args:
      path: a video.
      work: folder for both, on a disk.
      done: folder where both may be already; nothing is done then.
      frame_policy: which frames are kept.
      image_policy: how a frame becomes a square.
      encoding: how frames are kept.
      threads: of the decoder; 0 lets it choose.
    """
    identity = None
    file = Path(path)
    try:
        with local_file(path, work) as file:
            identity = video_id(file)
            size = file.stat().st_size
            if all((done / name).exists() for name in (shard_name(identity), note_name(identity))):
                return Outcome(path, identity, None, bytes=size)
            shard, note = work / shard_name(identity), work / note_name(identity)
            index = read_index(file)
            numbers = frame_policy.choose(len(index.times_F), index.fps)
            times = index.times_F[numbers]
            pixels = map(image_policy.prepare, decode_frames(index, numbers, threads))
            shards.write_shard(shard, identity, times, numbers, pixels, encoding)
            tracks = subtitles.read_inside(file, index.start)
        content = {
            "video_id": identity,
            "duration": index.duration,
            "fps": index.fps,
            "frames": len(numbers),
            "sha256": artefacts.file_sha256(shard),
            "bytes": shard.stat().st_size,
            "times": times.tolist(),
            "numbers": numbers.tolist(),
            "subtitles": [dataclasses.asdict(track) for track in tracks],
        }
        artefacts.write_json(note, content)
    except InputError as error:
        return Outcome(path, identity, str(error).removeprefix(f"{file}: "))
    return Outcome(path, identity, None, frames=len(numbers), bytes=size)
