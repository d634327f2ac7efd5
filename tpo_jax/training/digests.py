"""Digests of a checkpoint's files: flipped bytes are noticed, which Orbax does not do by itself.

write_digests(folder)          # the last file that a save writes
find_fault(folder)             # None, or what is wrong with it
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

DIGESTS_FILE = "digests.json"
# hashlib lets go of the interpreter while it reads, so threads share the work over cores.
THREADS = min(8, os.cpu_count() or 1)

T = TypeVar("T")


def write_digests(folder: Path, *, but_not: Sequence[str] = ()) -> None:
    """Writes `digests.json`: bytes and sha256 of every file below `folder`, by its path in it.

    Files named in `but_not`, which are still to change, are left out.
    """
    folder = Path(folder)  # Orbax gives a path of its own kind, which does not look into folders
    left_out = (DIGESTS_FILE, *but_not)
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [path for path in found if path.name not in left_out]
    digests = _in_threads(file_digest, paths)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest}
        for path, digest in zip(paths, digests, strict=True)
    }
    with (folder / DIGESTS_FILE).open("w", encoding="utf-8") as out:
        json.dump({"files": files}, out, indent=1)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())


def has_digests(folder: Path) -> bool:
    """Whether the folder's save came to its end, in a version that writes digests."""
    return (folder / DIGESTS_FILE).is_file()


def find_fault(folder: Path) -> str | None:
    """What is not as it was saved, with the file's name; None if all of it is.

    Sizes come first: a file that was cut short is found before gigabytes are read.
    """
    folder = Path(folder)
    path = folder / DIGESTS_FILE
    try:
        files = json.loads(path.read_text("utf-8"))["files"]
        saved = [(folder / name, int(at["bytes"]), at["sha256"]) for name, at in files.items()]
    except FileNotFoundError:
        return f"{DIGESTS_FILE} is missing, which a save writes last"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{DIGESTS_FILE} cannot be read ({type(error).__name__})"
    for file, size, _ in saved:
        if not file.is_file():
            return f"{file.relative_to(folder)} is missing"
        if file.stat().st_size != size:
            name = file.relative_to(folder)
            return f"{name} has {file.stat().st_size:,} bytes, {size:,} were saved"
    try:
        digests = _in_threads(file_digest, (file for file, _, _ in saved))
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    for (file, _, expected), found in zip(saved, digests, strict=True):
        if found != expected:
            return f"{file.relative_to(folder)} has other bytes than were saved"
    return None


def file_digest(path: Path) -> str:
    """sha256 of a file as 64 hex digits, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_threads(work: Callable[[Path], T], paths: Iterable[Path]) -> list[T]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, paths))
