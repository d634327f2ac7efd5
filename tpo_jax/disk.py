"""What a disk refuses, as one line with its mend: it is full, read-only, forbidden, or gone."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
# TensorStore, which writes arrays for Orbax, tells of a full disk in words alone.
FULL_WORDS = re.compile("|".join(re.escape(os.strerror(number)) for number in FULL))
GOES_ON = "then run the same command again, which goes on from what is whole"
MEGABYTE = 10**6


def fault_of_disk(error: BaseException, folder: Path, *, needed_bytes: int = 0) -> str | None:
    """What is wrong with the disk that `folder` is on; None if the error tells of something else.

    Args:
      error: it, and what it was raised from, are looked at.
      folder: absolute, that was written to.
      needed_bytes: of what could not be written, if that is known.
    """
    for one in _chain(error):
        full = FULL_WORDS.search(str(one))
        if full:
            free = shutil.disk_usage(_existing(folder)).free
            needed = f", {needed_bytes / MEGABYTE:,.1f} MB needed" if needed_bytes else ""
            room = f"{free / MEGABYTE:,.1f} MB free{needed}"
            return f"{folder}: {full[0]} ({room}); make room, {GOES_ON}"
        if not isinstance(one, OSError) or one.filename is None:
            continue
        path = Path(os.fsdecode(one.filename))
        if one.errno in REFUSED:
            return f"{path}: {one.strerror}; make it writable or use another folder, {GOES_ON}"
        if one.errno == errno.ENOENT and folder in path.parents and not folder.exists():
            return f"{folder}: is gone; bring it back, {GOES_ON}"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
