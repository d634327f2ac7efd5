"""Building a FrameStore: every video decoded once, by processes that may be killed at any time."""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import PIL

from data_pipelines import artefacts, shards, subtitles
from data_pipelines.errors import InputError
from data_pipelines.frames import KIND, QUARANTINE_NAME, SUBTITLES_NAME, quarantined
from data_pipelines.frames_on_beam import BeamConfig, run_on_beam
from data_pipelines.images import ImagePolicy
from data_pipelines.json_text import parse_json
from data_pipelines.processes import Undone, run_all
from data_pipelines.sampling import FramePolicy
from data_pipelines.stored_video import Outcome, note_name, shard_name, store_video
from data_pipelines.video import video_id
from data_pipelines.video_files import VideoPath, as_path, local_file, place_of

MEGABYTE = 1e6
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


def build_store(
    videos: Sequence[VideoPath | str],
    out: Path | str,
    *,
    frame_policy: FramePolicy,
    image_policy: ImagePolicy,
    encoding: shards.Encoding = "raw",
    workers: int = 1,
    seconds: float | None = None,
    beam: BeamConfig | None = None,
    progress: Progress | None = None,
) -> StoreSummary:
    """Decodes videos into a FrameStore at `out`.

    A file that is not a whole, decodable video is set aside with the reason, and the rest go on.
    A killed build continues where it was when called again. The finished bytes depend neither on
    `workers`, nor on the order of `videos`, nor on how often the build was killed.

    Args:
      videos: video files, in buckets too; the same bytes under two names are stored once.
      out: folder of the store; built as `<out>.partial` and renamed when whole.
      frame_policy: which frames are kept.
      image_policy: how a frame becomes a square.
      encoding: how frames are kept; anything but "raw" is lossy, and marked so.
      workers: processes that decode; above 1 they are spawned, so scripts need a `__main__` guard.
      seconds: that one file may take, or it is set aside. With it there always are processes.
      beam: decode on Apache Beam, not here (`frames_on_beam.py`); the store is the same.
      progress: called as `progress(done, total, detail)` after each file, in this process.

    Raises:
      InputError: no file could be stored; `out` or its partial folder was made from something
        else; a worker process was killed; or the Beam pipeline failed.
    """
    paths = sorted({as_path(video) for video in videos}, key=str)
    out = Path(out)
    if not paths or workers < 1:
        raise InputError(f"{out}: {len(paths)} videos, {workers} workers; both must be 1 or more")
    settings = {
        "frame_policy": dataclasses.asdict(frame_policy),
        "image_policy": dataclasses.asdict(image_policy),
        "encoding": encoding,
        "record_frames": shards.RECORD_FRAMES,
    }
    if out.exists():
        _check_reuse(out, paths, settings)
        return _summary(out, reused=True)
    with artefacts.building(out, resume=True) as partial:
        work = Path(partial) / "work"
        _take_up(work, settings)
        store = functools.partial(
            store_video,
            frame_policy=frame_policy,
            image_policy=image_policy,
            encoding=encoding,
            threads=0 if workers == 1 else 1,  # one source of parallelism is enough
        )
        if beam is None:
            here = functools.partial(store, work=work, done=work)
            run = run_all(here, paths, workers, seconds=seconds)
        else:
            made_from = artefacts.fingerprint(settings)
            run = run_on_beam(store, paths, work, beam, made_from=made_from, seconds=seconds)
        outcomes: list[Outcome] = []
        began = time.monotonic()
        # closing: when `progress` raises, the workers must stop before this returns.
        with contextlib.closing(run) as results:
            for path, result in results:
                if isinstance(result, Undone):
                    result = Outcome(path, None, result.reason)
                outcomes.append(result)
                if progress is not None:
                    detail = _detail(outcomes, time.monotonic() - began)
                    progress(len(outcomes), len(paths), detail)
        outcomes.sort(key=lambda outcome: str(outcome.path))
        if all(outcome.reason for outcome in outcomes):
            shutil.rmtree(partial)
            raise InputError(
                f"{out}: none of {len(paths)} files could be stored; the first, "
                f"{outcomes[0].path}: {outcomes[0].reason}"
            )
        _finish(partial, work, settings, outcomes)
    return _summary(out, reused=False)


def _detail(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The last file, and frames stored and bytes read a second by all workers so far."""
    last = outcomes[-1]
    said = f"{last.path.name}: {last.reason}" if last.reason else last.path.name
    frames, size = (sum(one) for one in zip(*((o.frames, o.bytes) for o in outcomes), strict=True))
    return f"{said} · {frames / seconds:.0f} frames/s, {size / MEGABYTE / seconds:.1f} MB/s"


def _check_reuse(out: Path, paths: Sequence[VideoPath], settings: dict[str, Any]) -> None:
    manifest = artefacts.read_manifest(out, KIND)
    made_from = {key: value for key, value in manifest["made_from"].items() if key != "videos"}
    mend = "delete it or choose another folder"
    artefacts.check_made_from(out, made_from, settings, mend)
    set_aside = quarantined(out)
    held = {entry["video_id"] for entry in [*manifest["videos"], *set_aside]}
    # A file that was set aside without an id could not be read, or took too long.
    unread = {entry["path"] for entry in set_aside if entry["video_id"] is None}
    given = {}
    for path in paths:
        if _printable(path) in unread:
            continue
        with contextlib.suppress(InputError), local_file(path, out.parent) as file:
            given[video_id(file)] = path
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
        artefacts.check_made_from(work.parent, parse_json(begun.read_text()), settings, mend)
    else:
        artefacts.write_json(begun, settings)
    order = work / "order.json"
    if order.exists():
        # Killed while the shards got their final names. Those depend on the set of videos, which
        # may be another one now, so they go back.
        identities = parse_json(order.read_text())
        for row, identity in enumerate(identities):
            final = work.parent / shards.shard_name(row, len(identities))
            if final.exists():
                os.replace(final, work / shard_name(identity))
        order.unlink()
    for leftover in {*work.glob("*.tmp"), *work.parent.iterdir()} - {work}:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _finish(
    partial: Path, work: Path, settings: dict[str, Any], outcomes: Sequence[Outcome]
) -> None:
    """Gives the shards their final names and describes them: to TFDS, and in the manifest."""
    root = os.path.commonpath([place_of(outcome.path).parent for outcome in outcomes])
    files: dict[str, list[VideoPath]] = {}
    quarantine = []
    for outcome in outcomes:
        if outcome.video_id is None or outcome.reason is not None:
            quarantine.append(_set_aside(outcome.path, outcome.reason, outcome.video_id))
        else:
            files.setdefault(outcome.video_id, []).append(outcome.path)
    identities = sorted(files)
    artefacts.write_json(work / "order.json", identities)
    beside = functools.cache(subtitles.files_by_video)  # of a folder, listed once
    entries, shown = [], []
    for row, identity in enumerate(identities):
        shard = shards.shard_name(row, len(identities))
        os.replace(work / shard_name(identity), partial / shard)
        note = parse_json((work / note_name(identity)).read_text())
        tracks = note.pop("subtitles")
        for path in [
            srt for file in files[identity] for srt in beside(file.parent).get(file.stem, ())
        ]:
            try:
                with local_file(path, work) as file:
                    tracks.append(dataclasses.asdict(subtitles.read_file(file)))
            except InputError as error:
                reason = str(error).removeprefix(f"{file}: ")
                quarantine.append(_set_aside(path, reason, identity))
        if tracks:
            shown.append({"video_id": identity, "tracks": tracks})
        names = {_printable(place_of(file).relative_to(root)) for file in files[identity]}
        entries.append(note | {"names": sorted(names), "shard": shard})
    shards.write_dataset(
        partial,
        settings["image_policy"]["size"],
        [entry["frames"] for entry in entries],
        [entry["bytes"] for entry in entries],
        settings["encoding"],
    )
    artefacts.write_text(partial / QUARANTINE_NAME, _lines(quarantine))
    artefacts.write_text(partial / SUBTITLES_NAME, _lines(shown))
    artefacts.write_manifest(
        partial,
        KIND,
        settings | {"videos": identities},
        lossy=settings["encoding"] != "raw",
        decoder={"pyav": av.__version__, "pillow": PIL.__version__},
        videos=entries,
    )
    shutil.rmtree(work)


def _set_aside(path: VideoPath, reason: str | None, identity: str | None) -> dict[str, Any]:
    return {"path": _printable(path), "reason": reason, "video_id": identity}


def _lines(entries: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def _printable(path: os.PathLike[str]) -> str:
    """The path as text; bytes in it that are not UTF-8 could not be written to the manifest."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _summary(out: Path, reused: bool) -> StoreSummary:
    entries = artefacts.read_manifest(out, KIND)["videos"]
    return StoreSummary(
        path=out,
        videos=len(entries),
        frames=sum(entry["frames"] for entry in entries),
        bytes=sum(entry["bytes"] for entry in entries),
        quarantined=len(quarantined(out)),
        reused=reused,
    )
