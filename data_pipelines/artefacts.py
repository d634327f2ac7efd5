"""Rules that every artefact on disk follows: atomic writes, a manifest, a fingerprint."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
from etils import epath

from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json

FORMAT_VERSION: int = 1
MANIFEST_NAME = "manifest.json"
UNFINISHED_NAME = "UNFINISHED"
HEAD = ("kind", "format", "fingerprint", "made_from", "content")  # of a manifest


def fingerprint(made_from: Mapping[str, Any]) -> str:
    """Returns 16 hex digits of the sha256 of `made_from` as JSON with sorted keys, no spaces.

    Raises:
      TypeError, ValueError: it holds something JSON has no exact form for (an array, a NaN).
    """
    canonical = json.dumps(made_from, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_sha256(path: Path | str) -> str:
    """Returns the sha256 of a file as 64 hex digits. Raises InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def sync_file(path: Path) -> None:
    """Forces a file's bytes to disk, so that a rename after it never exposes a short file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a UTF-8 file so that `path` holds either its old content or all of the new."""
    if in_bucket(path):  # where a file appears when it is whole
        epath.Path(path).write_text(text)
        return
    path = Path(path)
    # The process id keeps two writers of the same file out of each other's temporary file.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        sync_file(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: epath.PathLike, obj: Any) -> None:
    """Writes `obj` as indented JSON, atomically, in its own key order. ValueError on NaN."""
    write_text(path, json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is an address such as gs://bucket/folder."""
    return "://" in os.fspath(path)


def names_in(folder: epath.PathLike) -> set[str]:
    """Names of what is in a folder now, in a bucket too; none where there is no folder.

    A bucket has no empty folders, and gcsfs would answer a second time with what it listed before.
    """
    try:
        if not in_bucket(folder):
            return set(os.listdir(folder))
        files, path = fsspec.core.url_to_fs(os.fspath(folder), use_listings_cache=False)
        return {found.rsplit("/", 1)[1] for found in files.ls(path, detail=False)}
    except FileNotFoundError:
        return set()


def partial_folder(final: epath.PathLike) -> epath.Path:
    """Where `building` builds."""
    final = epath.Path(final)
    return final if in_bucket(final) else final.with_name(final.name + ".partial")


@contextlib.contextmanager
def building(final: epath.PathLike, resume: bool = False) -> Iterator[epath.Path]:
    """Gives a folder `<final>.partial` to build in; renames it to `final` if all goes well.

    A folder in a bucket cannot be renamed at once: it is built in place, and a file UNFINISHED
    stands in it until it is whole.

    Args:
      final: the artefact's folder; must not exist yet.
      resume: go on with what a killed build left in the partial folder, and leave the folder
        there when this build fails too. Without it a build starts empty and cleans up.

    Raises:
      InputError: `final` exists.
    """
    if in_bucket(final):
        with _building_in_place(epath.Path(final), resume) as folder:
            yield folder
        return
    final = epath.Path(final)
    if final.exists():
        raise InputError(f"{final}: exists already; delete it or choose another name")
    partial = partial_folder(final)
    if not resume:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
    except BaseException:
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    os.rename(partial, final)


@contextlib.contextmanager
def _building_in_place(final: epath.Path, resume: bool) -> Iterator[epath.Path]:
    mark = final / UNFINISHED_NAME
    # Without the mark the files in there may be anybody's.
    if final.exists() and not mark.exists():
        raise InputError(f"{final}: exists already; delete it or choose another name")
    if final.exists() and not resume:
        final.rmtree()
    mark.write_text("This folder is being written, or its writing was killed.\n")
    try:
        yield final
    except BaseException:
        if not resume:
            final.rmtree()
        raise
    mark.unlink()


def write_manifest(
    folder: epath.PathLike, kind: str, made_from: Mapping[str, Any], **content: Any
) -> None:
    """Writes `manifest.json`: kind, format version, `made_from`, its fingerprint, and `content`."""
    head = {
        "kind": kind,
        "format": FORMAT_VERSION,
        "fingerprint": fingerprint(made_from),
        "made_from": dict(made_from),
    }
    told = json.loads(json.dumps(content))  # as it is read back
    write_json(epath.Path(folder) / MANIFEST_NAME, head | {"content": fingerprint(told)} | content)


def read_manifest(folder: epath.PathLike, kind: str) -> dict[str, Any]:
    """Reads the manifest of an artefact that must be of the given kind.

    Raises:
      InputError: there is none, it is of another kind or newer format, or it is damaged.
    """
    folder = epath.Path(folder)
    path = folder / MANIFEST_NAME
    try:
        manifest = parse_json(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        partial = folder.with_name(folder.name + ".partial")
        mend = (
            "its build was not finished; run that stage again"
            if partial.is_dir() or (folder / UNFINISHED_NAME).exists()
            else "check the path, or run the stage that makes it"
        )
        raise InputError(f"{folder}: no finished '{kind}' artefact here; {mend}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); make the artefact again") from error
    if not isinstance(manifest, dict) or not {"kind", "format", "made_from"} <= manifest.keys():
        raise InputError(f"{path}: not a manifest; make the artefact again")
    if manifest["kind"] != kind:
        raise InputError(f"{folder}: holds '{manifest['kind']}', expected '{kind}'; check the path")
    if not isinstance(manifest["format"], int) or not isinstance(manifest["made_from"], dict):
        raise InputError(f"{path}: not a manifest; make the artefact again")
    if manifest["format"] > FORMAT_VERSION:
        raise InputError(
            f"{folder}: written in format {manifest['format']}, this version reads up to "
            f"{FORMAT_VERSION}; upgrade, or make the artefact again"
        )
    if not _is_of(manifest.get("fingerprint"), manifest["made_from"]):
        raise InputError(f"{path}: 'made_from' was changed by hand; make the artefact again")
    content = {key: value for key, value in manifest.items() if key not in HEAD}
    # Versions before this one wrote no "content".
    if "content" in manifest and not _is_of(manifest["content"], content):
        raise InputError(f"{path}: what it tells was changed by hand; make the artefact again")
    return manifest


def _is_of(found: Any, told: Mapping[str, Any]) -> bool:
    """Whether it is the fingerprint of this; nothing is of what holds a NaN."""
    try:
        return bool(found == fingerprint(told))
    except ValueError:
        return False


def check_made_from(
    path: Path | str, found: Mapping[str, Any], expected: Mapping[str, Any], mend: str
) -> None:
    """Refuses an artefact that was made from something else than the caller was configured for.

    Raises:
      InputError: names `path`, each differing key (dotted) with both values, and `mend`.
    """
    flat_found, flat_expected = _flatten(found), _flatten(expected)
    differences = [
        f"{key}: found {_short(flat_found, key)}, expected {_short(flat_expected, key)}"
        for key in sorted(flat_found.keys() | flat_expected.keys())
        if _short(flat_found, key, None) != _short(flat_expected, key, None)
    ]
    if differences:
        raise InputError(f"{path}: made from other settings ({'; '.join(differences)}); {mend}")


def check_unfinished(partial: epath.Path, made_from: Mapping[str, Any]) -> None:
    """Notes in a partial folder what it is made from; refuses one begun from something else.

    Raises:
      InputError: names each differing key, and the mend.
    """
    note = partial / "made_from.json"
    if note.exists():
        mend = f"delete {partial} to begin again, or use another folder"
        try:
            found = parse_json(note.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{note}: cannot be read ({error}); {mend}") from error
        if not isinstance(found, dict):
            raise InputError(f"{note}: not a JSON object; {mend}")
        check_made_from(partial, found, made_from, mend)
    else:
        write_json(note, made_from)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _short(flat: Mapping[str, Any], key: str, limit: int | None = 80) -> str:
    if key not in flat:
        return "nothing"
    # Through JSON, so that a tuple in memory equals the list it was written as.
    text = json.dumps(flat[key], sort_keys=True)
    return text if limit is None or len(text) <= limit else text[: limit - 3] + "..."
