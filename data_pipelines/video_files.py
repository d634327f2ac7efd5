"""Where videos lie: folders, lists, single files, on disks and in buckets."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import cast

from etils import epath

from data_pipelines.artefacts import in_bucket
from data_pipelines.errors import InputError

SUFFIXES = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm", ".wmv")
LIST_SUFFIXES = (".txt", ".list")

# A `Path`, or an `epath` one where the file is in a bucket; they are used alike.
VideoPath = Path


def find_videos(place: VideoPath | str) -> list[VideoPath]:
    """Lists the videos under a folder (all levels, by suffix, none hidden), of a list, or the file.

    A list is a text file (.txt or .list) with a video a line, local or in a bucket; a relative path
    is relative to the list's folder, an empty line and one that begins with # say nothing.

    Returns:
      Paths, sorted; those in buckets are `epath` ones.

    Raises:
      InputError: there is no such folder or file, or no video in it.
    """
    root = as_path(place)
    if root.is_file():
        return _read_list(root) if root.suffix.lower() in LIST_SUFFIXES else [root]
    if not root.is_dir():
        raise InputError(f"{root}: no such folder or file; check the path")
    found = sorted(
        path
        for path in _files(root)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise InputError(f"{root}: no video in this folder (looked for {' '.join(SUFFIXES)})")
    return found


def _files(folder: VideoPath) -> Iterator[VideoPath]:
    """All files below a folder. `epath` has no `rglob` for buckets."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _read_list(path: VideoPath) -> list[VideoPath]:
    lines = path.read_text(encoding="utf-8").split("\n")
    named = {line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")}
    if not named:
        raise InputError(f"{path}: names no video; write a path on each line")
    found = [as_path(name) if in_bucket(name) else path.parent / name for name in named]
    return sorted(found, key=str)


def as_path(place: VideoPath | str) -> VideoPath:
    """A path as text or not, of a disk or of a bucket, to be used alike."""
    return cast(Path, epath.Path(place)) if in_bucket(place) else Path(place)


def place_of(path: VideoPath) -> PurePosixPath:
    """An absolute path that says where a file lies, also for one in a bucket."""
    if in_bucket(path):
        return PurePosixPath("/", *os.fspath(path).split("/"))
    return PurePosixPath(Path(path).absolute())


@contextlib.contextmanager
def local_file(path: VideoPath, folder: Path) -> Iterator[Path]:
    """The file on a disk, since decoders read nothing else: one in a bucket as a copy of its name.

    Args:
      path: a video.
      folder: where a copy is put; it is gone afterwards.

    Raises:
      InputError: a file in a bucket cannot be read.
    """
    if not in_bucket(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(suffix=".tmp", dir=folder) as place:
        copy = Path(place) / path.name
        try:
            with epath.Path(path).open("rb") as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target)
        except OSError as error:
            raise InputError(f"{copy}: cannot be read: {error}") from error
        yield copy
