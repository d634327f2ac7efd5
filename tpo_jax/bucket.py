"""Paths that lie on a disk or in a bucket (gs://)."""

import os
from pathlib import Path
from typing import Any

import fsspec
from etils import epath

# gcsfs would answer a second time with what it listed before, and TensorStore and others write
# there beside it. Orbax lists through it too.
fsspec.config.conf.setdefault("gs", {})["use_listings_cache"] = False


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is an address such as gs://bucket/folder."""
    return "://" in os.fspath(path)


def path_at(path: epath.PathLike) -> Any:
    """A path as Python's own on a disk, and as epath's, which has the same methods, in a bucket."""
    return epath.Path(path) if in_bucket(path) else Path(path)


def names_in(folder: epath.PathLike) -> set[str]:
    """Names of what is in a folder now; none where there is none. A bucket has no empty folders."""
    try:
        return {path.name for path in path_at(folder).iterdir()}
    except FileNotFoundError:
        return set()
