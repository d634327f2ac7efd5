"""FrameStore: sampled frames of many videos, decoded once, read by position afterwards."""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines import artefacts, shards
from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json
from data_pipelines.subtitles import Track
from data_pipelines.video_info import VideoInfo

KIND = "frames"
QUARANTINE_NAME = "quarantine.jsonl"
SUBTITLES_NAME = "subtitles.jsonl"
Progress = Callable[[int, int, str], None]


class FrameStore:
    """Reads a finished store. Cheap to open and to pickle: shards are opened at the first read."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Use `FrameStore.open`."""
        self.path = path
        for entry in manifest["videos"]:
            if Path(entry["shard"]).name != entry["shard"]:
                raise InputError(f"{path}: names a shard outside of it, {entry['shard']!r}")
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

    @property
    def size(self) -> int:
        """Side of every frame in pixels."""
        return int(self.policies["image_policy"]["size"])

    @property
    def lossy(self) -> bool:
        """Whether frames are stored as JPEG, so that they are not quite those of the source."""
        return bool(self._manifest["lossy"])

    def info(self, video_id: str) -> VideoInfo:
        """Describes one video. Raises InputError if it is not in the store."""
        return VideoInfo.from_entry(self._entry(video_id), self.policies["frame_policy"])

    def frames(
        self,
        video_id: str,
        positions: npt.ArrayLike,
        out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Reads frames by their position among the stored frames of one video.

        Args:
          video_id: one of `videos`.
          positions: integers [F] from 0 to stored frames - 1, in any order, repeats allowed.
          out: written to and returned, if given: a place in a batch saves a copy.

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
        shape = (len(positions_F), self.size, self.size, 3)
        frames_FHWC = np.empty(shape, dtype=np.uint8) if out is None else out
        assert frames_FHWC.shape == shape and frames_FHWC.dtype == np.uint8
        records_F = positions_F // shards.RECORD_FRAMES
        for row in np.unique(records_F).tolist():
            here = np.flatnonzero(records_F == row)
            stored = self._record(entry, row)
            for place, position in zip(here, positions_F[here], strict=True):
                frames_FHWC[place] = stored[position - row * shards.RECORD_FRAMES]
        return frames_FHWC

    def subtitles(self, video_id: str) -> tuple[Track, ...]:
        """The subtitles inside and beside a video. InputError if it is not in the store."""
        self._entry(video_id)
        return self._subtitles.get(video_id, ())

    def check(self, progress: Progress | None = None) -> None:
        """Compares every shard with its sha256.

        Raises:
          InputError: names the shards that differ, and the records in them that cannot be read.
        """
        bad = []
        for done, entry in enumerate(self._entries.values(), start=1):
            shard = self.path / entry["shard"]
            if not shard.is_file():
                bad.append(f"{shard.name} is missing")
            elif artefacts.file_sha256(shard) != entry["sha256"]:
                bad.append(f"{shard.name} has changed, {self._damage(entry)}")
            if progress is not None:
                progress(done, len(self._entries), shard.name)
        if bad:
            raise InputError(
                f"{self.path}: {'; '.join(bad)}: copy them again or build the store again"
            )

    def _damage(self, entry: dict[str, Any]) -> str:
        count = shards.record_count(entry["frames"])
        numbers = shards.damaged_records(self.path / entry["shard"], count)
        if not numbers:
            return "in its index" if numbers is None else "but every record can be read"
        size, last = shards.RECORD_FRAMES, entry["frames"] - 1
        where = (f"{n} (frames {n * size} to {min((n + 1) * size - 1, last)})" for n in numbers)
        return f"record {', '.join(where)} of video {entry['video_id']}"

    def _entry(self, video_id: str) -> dict[str, Any]:
        if video_id not in self._entries:
            raise InputError(
                f"{self.path}: video {video_id!r} is not among the {len(self._entries)} stored; "
                "is the list from another store?"
            )
        entry: dict[str, Any] = self._entries[video_id]
        return entry

    def _record(self, entry: dict[str, Any], row: int) -> Sequence[npt.NDArray[np.uint8]]:
        """The frames of one record."""
        identity, shard = entry["video_id"], self.path / entry["shard"]
        number = self._first_record[identity] + row
        try:
            found, first, frames = shards.read_frames(
                self._records, number, self.size, self._encoding
            )
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{shard}: missing or damaged ({error}); copy it again or build the store again"
            ) from error
        if (found, first) != (identity, row * shards.RECORD_FRAMES):
            raise InputError(f"{shard}: holds other frames than listed; build the store again")
        return frames

    @functools.cached_property
    def _subtitles(self) -> dict[str, tuple[Track, ...]]:
        entries = read_lines(self.path / SUBTITLES_NAME)
        try:
            return {e["video_id"]: tuple(map(Track.from_json, e["tracks"])) for e in entries}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.path / SUBTITLES_NAME}: no subtitles ({error}); build the store again"
            ) from error

    @property
    def _encoding(self) -> shards.Encoding:
        return self._manifest["made_from"]["encoding"]

    @functools.cached_property
    def _records(self) -> Any:
        names = [entry["shard"] for entry in self._entries.values()]
        return shards.open_records(self.path, names)

    def __getstate__(self) -> dict[str, Any]:
        # Open shards stay behind; the copy opens its own.
        return {key: value for key, value in self.__dict__.items() if key != "_records"}


def quarantined(folder: Path) -> list[dict[str, Any]]:
    """What a build set aside: path, reason and, if it could be read, video_id."""
    return read_lines(folder / QUARANTINE_NAME)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of one JSON object a line. Not `splitlines`: a text may hold other line ends.

    Raises:
      InputError: it is missing or damaged.
    """
    try:
        lines = [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); build the store again") from error
    if not all(isinstance(line, dict) and "video_id" in line for line in lines):
        raise InputError(f"{path}: holds a line without video_id; build the store again")
    return lines
