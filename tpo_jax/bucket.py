"""Paths that lie on a disk or in a bucket (gs://), and what a bucket refuses."""

import os
import re
from pathlib import Path
from typing import Any

import fsspec
from etils import epath

# gcsfs would answer a second time with what it listed before, and TensorStore and others write
# there beside it. Orbax lists through it too.
fsspec.config.conf.setdefault("gs", {})["use_listings_cache"] = False

ROLES = "roles/storage.objectAdmin and roles/storage.legacyBucketReader"
OBJECT = re.compile(r"(^|/)b/")  # in the service's addresses: b/BUCKET/o/OBJECT
MOST_TOLD = 300  # characters


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


def fault_of_bucket(error: BaseException) -> str | None:
    """What a bucket refuses, as one line with its mend; None if the error tells of something else.

    Of a bucket that fails (5xx) nothing is said: that is no fault of the user's.
    """
    told = " ".join(str(error).split())[:MOST_TOLD]
    is_of_gcsfs = type(error).__module__.startswith("gcsfs")
    without_number = isinstance(error, OSError) and error.errno is None  # so gcsfs raises them
    if is_of_gcsfs and str(getattr(error, "code", "")) == "401":
        return f"{told}; log in: gcloud auth application-default login"
    if without_number and told.startswith("Forbidden: ") or told.startswith("PERMISSION_DENIED"):
        return f"{told}; give this account {ROLES} on the bucket"
    if without_number and isinstance(error, FileNotFoundError) and OBJECT.search(told):
        return f"{told}: no such bucket or object; check the address"
    return None
