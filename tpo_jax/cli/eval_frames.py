"""Frames for a task's items: the store that holds them, and what each item shows of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.counterfactual import can_be_asked, positions_seen
from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.task_run import Question
from benchmarks.tasks.item import Item
from benchmarks.tasks.task import Task, frames_shown
from benchmarks.tasks.video_match import match_videos
from data_pipelines.artefacts import check_made_from, fingerprint
from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore, quarantined
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.shards import Encoding
from data_pipelines.video_files import VideoPath, as_path, find_videos
from data_pipelines.video_info import VideoInfo
from tpo_jax.cli.eval_videos import VideoFiles
from tpo_jax.cli.frames import TIME_LIMIT
from tpo_jax.cli.progress import stage_progress, warn

Frames = FrameStore | VideoFiles


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How videos are decoded where no store is given: into which folder, as what, by how many."""

    folder: Path
    encoding: Encoding
    workers: int
    leave_out: bool


def frame_policy(protocol: Protocol) -> FramePolicy:
    """Which frames a store must keep for a protocol."""
    return FramePolicy(kind=protocol.frame_kind, fps=protocol.fps, max_frames=protocol.frames)


def find_files(items: Sequence[Item], videos: str, leave_out: bool) -> dict[str, VideoPath]:
    """The files that items are about, by their path within the folder, sorted.

    Raises:
      InputError: there is no such folder, or a video is missing and may not be left out.
    """
    root = as_path(videos)
    if not root.is_dir():
        raise InputError(f"{videos}: no such folder of videos; give --videos=FOLDER")
    paths = {path.relative_to(root).as_posix(): path for path in find_videos(videos)}
    matched = match_videos(items, paths, videos, leave_out=leave_out)
    if not matched:
        raise InputError(f"{videos}: none of the task's videos is there; give --videos=FOLDER")
    return {name: paths[name] for name in sorted(set(matched.values()))}


def make_store(
    items: Sequence[Item],
    protocol: Protocol,
    videos: str,
    images: ImagePolicy,
    how: Decoding,
) -> FrameStore:
    """Decodes the videos that items are about, or finds that done.

    Raises:
      InputError: a video is missing or cannot be decoded, and may not be left out.
    """
    paths = find_files(items, videos, how.leave_out)
    wanted = list(paths)
    # Tasks and models that are shown the same frames of the same videos share a store. Its name
    # tells which they are, by name and size: to hash them all each time would take long.
    alike = {
        "frames": asdict(frame_policy(protocol)),
        "images": asdict(images),
        "encoding": how.encoding,
        "videos": {str(path): _size(path) for path in paths.values()},
    }
    name = f"{protocol.frame_kind}-{protocol.frames}-{images.size}-{fingerprint(alike)[:8]}"
    out = how.folder / name
    if not out.exists():
        with stage_progress(f"frames of {videos}", len(wanted)) as update:
            build_store(
                list(paths.values()),
                out,
                frame_policy=frame_policy(protocol),
                image_policy=images,
                encoding=how.encoding,
                workers=how.workers,
                seconds=TIME_LIMIT if how.workers > 1 else None,
                progress=lambda done, total, detail: update(done, detail),
            )
    bad = [entry for entry in quarantined(out) if Path(entry["path"]).name in _files(wanted)]
    if bad:
        said = f"{out}: {len(bad)} videos cannot be decoded; the first, {bad[0]['path']}: "
        said += str(bad[0]["reason"])
        if not how.leave_out:
            raise InputError(f"{said}; mend them and delete {out}, or give --leave-out-missing")
        warn(said)
    return FrameStore.open(out)


def _size(path: VideoPath) -> int:
    """Of a file on a disk or in a bucket, whose paths tell it under another name."""
    told: Any = path.stat()
    return int(told.st_size if hasattr(told, "st_size") else told.length)


def _files(names: Sequence[str]) -> set[str]:
    return {Path(name).name for name in names}


def open_store(place: str, images: ImagePolicy) -> FrameStore:
    """A store that is there already.

    Raises:
      InputError: there is none, or its frames are not made for this model's encoder.
    """
    store = FrameStore.open(place)
    mend = "give a store made for this checkpoint's encoder, or --videos"
    wanted = {"image_policy": asdict(images)}
    check_made_from(place, {"image_policy": store.policies["image_policy"]}, wanted, mend)
    return store


def facts_of(info: VideoInfo) -> VideoFacts:
    """What prompts and frame rules need of a stored video."""
    # The rate is frames by duration, so this is exact; a single frame may have no duration.
    frames = round(info.fps * info.duration) or 1
    return VideoFacts(frames=frames, fps=info.fps, duration=info.duration)


def make_questions(
    task: Task, items: Sequence[Item], protocol: Protocol, store: Frames, leave_out: bool
) -> list[Question]:
    """Every item with its prompt and its frames, in order; without those that are left out.

    Raises:
      InputError: a video is not in the store, or not all of the frames that the protocol shows; or
        frames are to be taken away whose places the prompt tells.
    """
    if task.interleaved and protocol.taken in ("removed", "blind"):
        raise InputError(
            f"{task.name}: its prompt says where each frame goes, so taken={protocol.taken} cannot "
            "take frames away; ask longvideobench_val_v, or with taken=shuffled"
        )
    info_of = cache(store.info)
    ids = {name: video for video in store.videos for name in info_of(video).names}
    matched = match_videos(items, ids, str(store.path), leave_out=leave_out)
    questions = []
    for item in items:
        if item.video not in matched or not _can_be_asked(item, protocol):
            continue
        video = ids[matched[item.video]]
        facts = facts_of(info_of(video))
        numbers = np.asarray(frames_shown(task, item, protocol, facts), np.int64)
        positions = _positions(store, info_of(video), numbers)
        questions.append(
            Question(
                item=item,
                video=video,
                text=task.prompt(item, protocol, facts),
                positions=_seen(item, protocol, info_of(video), positions),
                interleaved=task.interleaved,
            )
        )
    if not questions:
        told = f"; none of its questions needs what taken={protocol.taken} takes away"
        raise InputError(
            f"{store.path}: holds no video of {task.name}"
            if protocol.taken == "nothing"
            else f"{task.name}: nothing is left to ask{told}"
        )
    return questions


def _can_be_asked(item: Item, protocol: Protocol) -> bool:
    return protocol.taken == "nothing" or can_be_asked(item, protocol.taken)


def _seen(item: Item, protocol: Protocol, info: VideoInfo, positions_F: np.ndarray) -> np.ndarray:
    """What is left of the frames shown, int64 [F'], in showing order."""
    if protocol.taken == "nothing":
        return positions_F
    return positions_seen(item, protocol.taken, positions_F, info.times_F, protocol.seed)


def _positions(store: Frames, info: VideoInfo, numbers_F: np.ndarray) -> np.ndarray:
    """Where frames of the source lie among the stored ones, int64 [F]."""
    positions_F = np.minimum(np.searchsorted(info.numbers_F, numbers_F), len(info.numbers_F) - 1)
    lacking = np.flatnonzero(info.numbers_F[positions_F] != numbers_F)
    if len(lacking):
        raise InputError(
            f"{store.path}: {info.names[0]}: {len(lacking)} of the {len(numbers_F)} frames that "
            f"the protocol shows are not stored (the first: number {numbers_F[lacking[0]]}); the "
            f"store was made with {store.policies['frame_policy']}: give one made by the "
            "protocol's rule, or --videos to decode them"
        )
    return positions_F
