"""Digests of a checkpoint's files: flipped bytes are noticed, which Orbax does not do by itself.

write_digests(folder)          # before a save gets its name, or its mark
find_fault(folder)             # None, or what is wrong with it

On a disk files are read for it. A bucket tells the MD5 of what it holds, and nothing is read; where
a copy lies on the other of the two, its files are read and hashed as they were where it was made.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fsspec
from etils import epath

from tpo_jax.bucket import in_bucket, names_in, path_at

DIGESTS_FILE = "digests.json"
# hashlib lets go of the interpreter while it reads, so threads share the work over cores.
THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file as it lies there; `md5` as hex digits where the place tells it unasked."""

    bytes: int
    md5: str | None = None


def write_digests(folder: epath.PathLike, *, but_not: Sequence[str] = ()) -> None:
    """Writes `digests.json`: bytes and digest of every file below `folder`, by its path in it.

    Files named in `but_not`, which are still to change, are left out.
    """
    folder = path_at(folder)
    left_out = (DIGESTS_FILE, *but_not)
    stored = {
        name: file
        for name, file in stored_files(folder).items()
        if name.rsplit("/", 1)[-1] not in left_out
    }
    algorithms = {name: "md5" if file.md5 else "sha256" for name, file in stored.items()}
    digests = _digests(folder, stored, algorithms)
    files = {
        name: {"bytes": stored[name].bytes, algorithms[name]: digests[name]} for name in stored
    }
    with (folder / DIGESTS_FILE).open("w", encoding="utf-8") as out:
        out.write(json.dumps({"files": files}, indent=1) + "\n")
        if not in_bucket(folder):
            out.flush()
            os.fsync(out.fileno())


def has_digests(folder: epath.PathLike) -> bool:
    """Whether the folder's save came to its end, in a version that writes digests."""
    return DIGESTS_FILE in names_in(folder)


def find_fault(folder: epath.PathLike) -> str | None:
    """What is not as it was saved, with the file's name; None if all of it is.

    Sizes come first: a file that was cut short is found before gigabytes are read.
    """
    folder = path_at(folder)
    try:
        files = json.loads((folder / DIGESTS_FILE).read_text("utf-8"))["files"]
        algorithms = {name: "md5" if "md5" in at else "sha256" for name, at in files.items()}
        saved = {name: (int(at["bytes"]), at[algorithms[name]]) for name, at in files.items()}
    except FileNotFoundError:
        return f"{DIGESTS_FILE} is missing, which a save writes last"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{DIGESTS_FILE} cannot be read ({type(error).__name__})"
    stored = stored_files(folder)
    for name, (size, _) in saved.items():
        if name not in stored:
            return f"{name} is missing"
        if stored[name].bytes != size:
            return f"{name} has {stored[name].bytes:,} bytes, {size:,} were saved"
    try:
        digests = _digests(folder, stored, algorithms)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    for name, (_, expected) in saved.items():
        if digests[name] != expected:
            return f"{name} has other bytes than were saved"
    return None


def stored_files(folder: epath.PathLike) -> dict[str, Stored]:
    """Every file below a folder, by its path in it."""
    if not in_bucket(folder):
        root = Path(folder)  # Orbax gives a path of its own kind, which does not look into folders
        found = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {
            path.relative_to(root).as_posix(): Stored(bytes=path.stat().st_size) for path in found
        }
    files, top = fsspec.core.url_to_fs(os.fspath(folder))
    return {
        path.removeprefix(f"{top}/"): Stored(bytes=told["size"], md5=_hex(told.get("md5Hash")))
        for path, told in sorted(files.find(top, detail=True).items())
        if told["type"] == "file"
    }


def _hex(md5: str | None) -> str | None:
    """Buckets tell it in base64, and not at all of what was put together from parts."""
    return base64.b64decode(md5).hex() if md5 else None


def _digests(
    folder: Path, stored: Mapping[str, Stored], algorithms: Mapping[str, str]
) -> dict[str, str]:
    """The digest of each file that has an algorithm; read is what the place does not tell."""

    def digest(name: str) -> str:
        if algorithms[name] == "md5" and (told := stored[name].md5):
            return told
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, algorithms[name]).hexdigest()

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(algorithms, pool.map(digest, algorithms), strict=True))
