"""The table of formats: which there are, how a file's is told, how a file is read and written."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_pipelines.artefacts import fingerprint, write_text
from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json
from data_pipelines.pair_formats import llama_factory, llava_next, ms_swift, trl
from data_pipelines.pair_formats.csv_table import read_table
from data_pipelines.pair_formats.row import Row, from_pair
from data_pipelines.pairs import Pair, read_pairs, write_pairs
from data_pipelines.video_names import VideoNames

OURS, CSV = "ours", "csv"


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of JSON entries.

    Attributes:
      fits: whether an entry looks like it.
      read: an entry and where it is -> the row.
      write: a row -> the entry; None where we only read.
    """

    fits: Callable[[dict[str, Any]], bool]
    read: Callable[[dict[str, Any], str], Row]
    write: Callable[[Row], dict[str, Any]] | None = None


FORMATS: dict[str, Format] = {
    "llava_next": Format(fits=llava_next.fits, read=llava_next.read, write=llava_next.write),
    "ms_swift": Format(fits=ms_swift.fits, read=ms_swift.read, write=ms_swift.write),
    "llama_factory": Format(fits=llama_factory.fits, read=llama_factory.read),
    "trl": Format(fits=trl.fits, read=trl.read),
}
READABLE = (OURS, *FORMATS, CSV)
WRITABLE = (OURS, *(name for name, one in FORMATS.items() if one.write is not None))


# ---------------------------------------------------------------------------------------- reading


def read_rows(
    path: Path, name: str | None = None, columns: Mapping[str, str] | None = None
) -> tuple[str, list[Row]]:
    """Reads a file of pairs; JSON formats as a list or as lines, whichever it is.

    Args:
      path: the file.
      name: one of READABLE; None to tell it by the first entry.
      columns: for CSV, field -> column.

    Returns:
      The name of the format and the rows.

    Raises:
      InputError: the file is not there, empty or unreadable, its format cannot be told, or a row is
        wrong; names file and line, or the number of the row in a list.
    """
    text = _read_text(path)
    if name is None:
        name = CSV if path.suffix.lower() == ".csv" else _guess(path, text)
    if columns and name != CSV:
        raise InputError(f"{path}: --columns is for csv, this is {name}; --from says otherwise")
    if name == OURS:
        pairs = read_pairs(path)
        return name, [from_pair(pair, f"{path}:{line}") for line, pair in enumerate(pairs, 1)]
    if name == CSV:
        rows = read_table(path, text, columns or {})
    else:
        rows = [FORMATS[name].read(entry, where) for entry, where in _entries(path, text)]
    if not rows:
        raise InputError(f"{path}: holds no pair")
    return name, _with_own_ids(rows)


def _read_text(path: Path) -> str:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a UTF-8 file") from error
    if not text.strip():
        raise InputError(f"{path}: is empty")
    return text


def _entries(path: Path, text: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Each entry and where it is, out of a JSON list or of JSON lines."""
    if text.lstrip().startswith("["):
        try:
            whole = parse_json(text)
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error})") from error
        for number, entry in enumerate(whole, 1):
            yield _object(entry, f"{path}: row {number}"), f"{path}: row {number}"
        return
    # Not splitlines: a text may hold U+2028 and its like, which JSON leaves as they are.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not JSON ({error})") from error
        yield _object(entry, f"{path}:{number}"), f"{path}:{number}"


def _object(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not a JSON object, so not a pair")
    return entry


def _guess(path: Path, text: str) -> str:
    entry, where = next(_entries(path, text), ({}, f"{path}"))
    fitting = [name for name, one in FORMATS.items() if one.fits(entry)]
    if {"video_id", "question"} <= entry.keys():
        fitting.append(OURS)
    if len(fitting) != 1:
        found = f"could be {' or '.join(fitting)}" if fitting else "looks like none"
        raise InputError(
            f"{where}: {found} of the formats that are read, with the keys "
            f"{', '.join(map(repr, entry)) or 'none'}; --from={'|'.join(READABLE)} says which"
        )
    return fitting[0]


def _with_own_ids(rows: list[Row]) -> list[Row]:
    """An id that several rows have, such as the video's, is no id of a pair."""
    counts = Counter(row.id for row in rows)
    return [
        row
        if row.id is None or counts[row.id] == 1
        else replace(row, id=None, left_out=(*row.left_out, "id, where rows share one"))
        for row in rows
    ]


# ---------------------------------------------------------------------------------------- writing


def write_rows(
    path: Path,
    name: str,
    rows: Sequence[Row],
    videos: VideoNames | None = None,
    video_root: str = "",
) -> None:
    """Writes a file of pairs, beside its name and renamed when whole.

    Formats of others become a JSON list where the name ends in .json, else JSON lines.

    Args:
      path: must not be there yet.
      name: one of WRITABLE.
      rows: at least one; resolved (`resolve`) for our own format.
      videos: where the videos of resolved rows are. Rows that are not keep the name they tell, and
        nobody looks whether there is such a file.
      video_root: put before each video's name, for a format that names files.

    Raises:
      InputError: the file is there, or a row cannot be told in the format; names it.
    """
    if path.exists():
        raise InputError(f"{path}: exists already; delete it or choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it, or check the path")
    if not rows:
        raise InputError(f"{path}: no pair is left to write")
    if name == OURS:
        if path.suffix == ".json":
            raise InputError(f"{path}: our pairs are JSON lines; name it .jsonl")
        write_pairs(path, [_pair_of(row) for row in rows])
        return
    write = FORMATS[name].write
    if write is None:
        raise InputError(f"{name}: is only read; written are {', '.join(WRITABLE)}")
    entries = [write(_named(row, videos, video_root)) for row in rows]
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    is_list = path.suffix.lower() == ".json"
    write_text(
        path, "[\n" + ",\n".join(lines) + "\n]\n" if is_list else "".join(f"{x}\n" for x in lines)
    )


def _pair_of(row: Row) -> Pair:
    if row.pair is None:
        raise InputError(
            f"{row.where}: names a file, {row.video!r}, where our pairs tell an id; "
            "--videos=FOLDER says where the videos are (a folder, or a frame store)"
        )
    return row.pair


def _named(row: Row, videos: VideoNames | None, video_root: str) -> Row:
    """The row with the name of its video's file, and an id."""
    name = row.video
    if row.pair is not None:
        if videos is None:
            raise InputError(
                f"{row.where}: our pairs tell their video by id; --videos=FOLDER says which files "
                "these are (a folder, or a frame store)"
            )
        name = videos.name_of(row.pair.video_id, row.where)
    identity = row.id or _content_id(row)
    return replace(
        row, video=f"{video_root.rstrip('/')}/{name}" if video_root else name, id=identity
    )


def _content_id(row: Row) -> str:
    return fingerprint({"given": [row.video, row.question, row.chosen, row.rejected]})
