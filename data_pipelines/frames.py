"""FrameStore: sampled frames of many videos, decoded once, read by position afterwards."""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import PIL

from data_pipelines import artefacts, shards
from data_pipelines.errors import InputError
from data_pipelines.images import ImagePolicy
from data_pipelines.processes import run_all
from data_pipelines.sampling import FramePolicy
from data_pipelines.video import decode_frames, read_index, video_id
from data_pipelines.video_info import VideoInfo

KIND = "frames"
QUARANTINE_NAME = "quarantine.jsonl"
Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreSummary:
    """What a build left behind, in the folder `path`.

    Attributes:
      videos: stored videos; files with the same bytes count once.
      frames: stored frames of all videos.
      bytes: size of all shards.
      quarantined: files set aside; `quarantine.jsonl` in the store says why.
      reused: the store was there already and nothing was done.
    """

    path: Path
    videos: int
    frames: int
    bytes: int
    quarantined: int
    reused: bool


class _Outcome(NamedTuple):
    path: Path
    video_id: str | None  # None: not even readable
    reason: str | None  # None: stored


# ---------------------------------------------------------------------------------------- writing


def build_store(
    videos: Sequence[Path | str],
    out: Path | str,
    *,
    frame_policy: FramePolicy,
    image_policy: ImagePolicy,
    workers: int = 1,
    progress: Progress | None = None,
) -> StoreSummary:
    """Decodes videos into a FrameStore at `out`.

    A file that is not a whole, decodable video is set aside with the reason, and the rest go on.
    A killed build continues where it was when called again. The finished bytes depend neither on
    `workers`, nor on the order of `videos`, nor on how often the build was killed.

    Args:
      videos: video files; the same bytes under two names are stored once.
      out: folder of the store; built as `<out>.partial` and renamed when whole.
      frame_policy: which frames are kept.
      image_policy: how a frame becomes a square.
      workers: processes that decode; above 1 they are spawned, so scripts need a `__main__` guard.
      progress: called as `progress(done, total, detail)` after each file, in this process.

    Raises:
      InputError: no file could be stored; `out` or its partial folder was made from something
        else; or a worker process died.
    """
    paths = sorted({Path(video) for video in videos})
    out = Path(out)
    if not paths or workers < 1:
        raise InputError(f"{out}: {len(paths)} videos, {workers} workers; both must be 1 or more")
    settings = {
        "frame_policy": dataclasses.asdict(frame_policy),
        "image_policy": dataclasses.asdict(image_policy),
        "record_frames": shards.RECORD_FRAMES,
    }
    if out.exists():
        _check_reuse(out, paths, settings)
        return _summary(out, reused=True)
    with artefacts.building(out, resume=True) as partial:
        work = Path(partial) / "work"
        _take_up(work, settings)
        store = functools.partial(
            _store_video,
            work=work,
            frame_policy=frame_policy,
            image_policy=image_policy,
            threads=0 if workers == 1 else 1,  # one source of parallelism is enough
        )
        outcomes: list[_Outcome] = []
        # closing: when `progress` raises, the workers must stop before this returns.
        with contextlib.closing(run_all(store, paths, workers)) as results:
            for outcome in results:
                outcomes.append(outcome)
                if progress is not None:
                    name, reason = outcome.path.name, outcome.reason
                    progress(len(outcomes), len(paths), f"{name}: {reason}" if reason else name)
        outcomes.sort()
        if all(outcome.reason for outcome in outcomes):
            shutil.rmtree(partial)
            raise InputError(
                f"{out}: none of {len(paths)} files could be stored; the first, "
                f"{outcomes[0].path}: {outcomes[0].reason}"
            )
        _finish(partial, work, settings, outcomes)
    return _summary(out, reused=False)


def _check_reuse(out: Path, paths: Sequence[Path], settings: dict[str, Any]) -> None:
    manifest = artefacts.read_manifest(out, KIND)
    made_from = {key: value for key, value in manifest["made_from"].items() if key != "videos"}
    mend = "delete it or choose another folder"
    artefacts.check_made_from(out, made_from, settings, mend)
    held = {entry["video_id"] for entry in [*manifest["videos"], *_quarantined(out)]}
    given = {}
    for path in paths:
        # A file that is not even readable was set aside without an id, and is no news now.
        with contextlib.suppress(InputError):
            given[video_id(path)] = path
    new, gone = sorted(given.keys() - held), held - given.keys() - {None}
    if new or gone:
        first = f" (first: {given[new[0]]})" if new else ""
        raise InputError(
            f"{out}: made from other videos: {len(new)} given are not in it{first}, "
            f"{len(gone)} in it were not given; {mend}"
        )


def _take_up(work: Path, settings: dict[str, Any]) -> None:
    """Makes the work folder ready, whatever state a killed build left it in."""
    work.mkdir(exist_ok=True)
    begun = work / "settings.json"
    if begun.exists():
        mend = "finish it with those settings or delete it"
        artefacts.check_made_from(work.parent, json.loads(begun.read_text()), settings, mend)
    else:
        artefacts.write_json(begun, settings)
    order = work / "order.json"
    if order.exists():
        # Killed while the shards got their final names. Those depend on the set of videos, which
        # may be another one now, so they go back.
        identities = json.loads(order.read_text())
        for row, identity in enumerate(identities):
            final = work.parent / shards.shard_name(row, len(identities))
            if final.exists():
                os.replace(final, work / f"{identity}.array_record")
        order.unlink()
    for leftover in {*work.glob("*.tmp"), *work.parent.iterdir()} - {work}:
        leftover.unlink()


def _store_video(
    path: Path, work: Path, frame_policy: FramePolicy, image_policy: ImagePolicy, threads: int
) -> _Outcome:
    """Writes `<video id>.array_record` and, last, `<video id>.json`, unless both are there."""
    identity = None
    try:
        identity = video_id(path)
        shard, note = work / f"{identity}.array_record", work / f"{identity}.json"
        if shard.exists() and note.exists():
            return _Outcome(path, identity, None)
        index = read_index(path)
        numbers = frame_policy.choose(len(index.times_F), index.fps)
        times = index.times_F[numbers]
        pixels = map(image_policy.prepare, decode_frames(index, numbers, threads))
        shards.write_shard(shard, identity, times, numbers, pixels)
        content = {
            "video_id": identity,
            "duration": index.duration,
            "fps": index.fps,
            "frames": len(numbers),
            "sha256": artefacts.file_sha256(shard),
            "bytes": shard.stat().st_size,
            "times": times.tolist(),
            "numbers": numbers.tolist(),
        }
        artefacts.write_json(note, content)
    except InputError as error:
        return _Outcome(path, identity, str(error).removeprefix(f"{path}: "))
    return _Outcome(path, identity, None)


def _finish(
    partial: Path, work: Path, settings: dict[str, Any], outcomes: Sequence[_Outcome]
) -> None:
    """Gives the shards their final names and describes them: to TFDS, and in the manifest."""
    root = os.path.commonpath([outcome.path.absolute().parent for outcome in outcomes])
    names: dict[str, set[str]] = {}
    quarantine = []
    for path, identity, reason in outcomes:
        if identity is None or reason is not None:
            set_aside = {"path": _printable(path), "reason": reason, "video_id": identity}
            quarantine.append(json.dumps(set_aside, ensure_ascii=False) + "\n")
        else:
            names.setdefault(identity, set()).add(_printable(path.absolute().relative_to(root)))
    identities = sorted(names)
    artefacts.write_json(work / "order.json", identities)
    entries = []
    for row, identity in enumerate(identities):
        shard = shards.shard_name(row, len(identities))
        os.replace(work / f"{identity}.array_record", partial / shard)
        note = json.loads((work / f"{identity}.json").read_text())
        entries.append(note | {"names": sorted(names[identity]), "shard": shard})
    shards.write_dataset(
        partial,
        settings["image_policy"]["size"],
        [entry["frames"] for entry in entries],
        [entry["bytes"] for entry in entries],
    )
    artefacts.write_text(partial / QUARANTINE_NAME, "".join(quarantine))
    artefacts.write_manifest(
        partial,
        KIND,
        settings | {"videos": identities},
        decoder={"pyav": av.__version__, "pillow": PIL.__version__},
        videos=entries,
    )
    shutil.rmtree(work)


def _printable(path: Path) -> str:
    """The path as text; bytes in it that are not UTF-8 could not be written to the manifest."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _quarantined(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / QUARANTINE_NAME).read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _summary(out: Path, reused: bool) -> StoreSummary:
    entries = artefacts.read_manifest(out, KIND)["videos"]
    return StoreSummary(
        path=out,
        videos=len(entries),
        frames=sum(entry["frames"] for entry in entries),
        bytes=sum(entry["bytes"] for entry in entries),
        quarantined=len(_quarantined(out)),
        reused=reused,
    )


# ---------------------------------------------------------------------------------------- reading


class FrameStore:
    """Reads a finished store. Cheap to open and to pickle: shards are opened at the first read."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Use `FrameStore.open`."""
        self.path = path
        self._manifest = manifest
        self._entries = {entry["video_id"]: entry for entry in manifest["videos"]}
        counts = [shards.record_count(entry["frames"]) for entry in manifest["videos"]]
        starts = itertools.accumulate(counts, initial=0)
        self._first_record = dict(zip(self._entries, starts, strict=False))

    @classmethod
    def open(cls, path: Path | str) -> "FrameStore":
        """Opens the store in a folder; reads only the manifest. InputError if there is none."""
        return cls(Path(path), artefacts.read_manifest(path, KIND))

    @property
    def videos(self) -> list[str]:
        """Ids of all stored videos, sorted."""
        return list(self._entries)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the policies and the video ids."""
        return str(self._manifest["fingerprint"])

    @property
    def policies(self) -> dict[str, Any]:
        """The frame and the image policy the store was made with, as JSON."""
        return {key: self._manifest["made_from"][key] for key in ("frame_policy", "image_policy")}

    def info(self, video_id: str) -> VideoInfo:
        """Describes one video. Raises InputError if it is not in the store."""
        return VideoInfo.from_entry(self._entry(video_id), self.policies["frame_policy"])

    def frames(self, video_id: str, positions: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Reads frames by their position among the stored frames of one video.

        Args:
          video_id: one of `videos`.
          positions: integers [F] from 0 to stored frames - 1, in any order, repeats allowed.

        Returns:
          uint8 [F, size, size, 3], writable, in the order of `positions`. Only the records that
          hold these frames are read.

        Raises:
          InputError: the video or a position is not in the store; a shard is missing or damaged.
        """
        entry = self._entry(video_id)
        positions_F = np.asarray(positions, dtype=np.int64)
        if np.any((positions_F < 0) | (positions_F >= entry["frames"])):
            raise InputError(
                f"{self.path}: video {video_id} has {entry['frames']} stored frames, asked for "
                f"{positions_F.min()} to {positions_F.max()}; is the list from another store?"
            )
        size = int(self.policies["image_policy"]["size"])
        frames_FHWC = np.empty((len(positions_F), size, size, 3), dtype=np.uint8)
        records_F = positions_F // shards.RECORD_FRAMES
        for row in np.unique(records_F).tolist():
            here = np.flatnonzero(records_F == row)
            record = self._record(entry, row)
            frames_FHWC[here] = record["frames"][positions_F[here] - row * shards.RECORD_FRAMES]
        return frames_FHWC

    def check(self, progress: Progress | None = None) -> None:
        """Compares every shard with its sha256. Raises InputError naming those that differ."""
        bad = []
        for done, entry in enumerate(self._entries.values(), start=1):
            shard = entry["shard"]
            exists = (self.path / shard).is_file()
            if not exists or artefacts.file_sha256(self.path / shard) != entry["sha256"]:
                bad.append(shard)
            if progress is not None:
                progress(done, len(self._entries), shard)
        if bad:
            raise InputError(
                f"{self.path}: shards missing or changed: {', '.join(bad)}; "
                "copy them again or build the store again"
            )

    def _entry(self, video_id: str) -> dict[str, Any]:
        if video_id not in self._entries:
            raise InputError(
                f"{self.path}: video {video_id!r} is not among the {len(self._entries)} stored; "
                "is the list from another store?"
            )
        entry: dict[str, Any] = self._entries[video_id]
        return entry

    def _record(self, entry: dict[str, Any], row: int) -> dict[str, Any]:
        identity, shard = entry["video_id"], self.path / entry["shard"]
        try:
            record: dict[str, Any] = self._records[self._first_record[identity] + row]
        except (RuntimeError, OSError) as error:
            raise InputError(
                f"{shard}: missing or damaged ({error}); copy it again or build the store again"
            ) from error
        if (record["video_id"].decode(), record["first"]) != (identity, row * shards.RECORD_FRAMES):
            raise InputError(f"{shard}: holds other frames than listed; build the store again")
        return record

    @functools.cached_property
    def _records(self) -> Any:
        return shards.open_records(self.path)

    def __getstate__(self) -> dict[str, Any]:
        # Open shards stay behind; the copy opens its own.
        return {key: value for key, value in self.__dict__.items() if key != "_records"}
