"""Rows of published files: parquet, JSON, JSON lines and CSV, with the columns a task needs."""

import csv
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json

Row = dict[str, Any]
# Column -> the types it may have; every row must have it.
Columns = Mapping[str, type | tuple[type, ...]]
SUFFIXES = (".parquet", ".json", ".jsonl", ".csv")


def find_file(path: Path, patterns: Sequence[str], what: str) -> Path:
    """A task's file: the path itself, or the one file of a folder that fits.

    Args:
      path: a file, or a folder as it is published.
      patterns: of file names relative to the folder; the first that fits any file counts.
      what: names the task in messages.

    Raises:
      InputError: nothing is there, or nothing or too much fits.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; give {what}'s data as it is published")
    for pattern in patterns:
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(one.name for one in found[:4])
            raise InputError(f"{path}: several files fit {what} ({names}); name the one to read")
    raise InputError(f"{path}: no file of {what} here; looked for {', '.join(patterns)}")


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """Every row of a file, checked for the columns that are needed.

    A parquet file is read whole; JSON is a list of objects; each line of JSON lines is one.
    Every value of a CSV is a string.

    Raises:
      InputError: one line with file, row and column, if the file is missing, cut off or damaged, or
        lacks a column or has another type in it.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: must end in one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    readers = {".parquet": _parquet, ".json": _json, ".jsonl": _json_lines, ".csv": _csv}
    rows = readers[path.suffix](path)
    if not rows:
        raise InputError(f"{path}: holds no row; fetch it again")
    check_rows(path, rows, columns)
    return rows


def check_rows(where: Path | str, rows: Iterable[Any], columns: Columns) -> None:
    """Raises InputError for the first row that lacks a column or has another type in it."""
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{where}: row {number} is no object; is this another file?")
        for name, kinds in columns.items():
            if name not in row:
                near = difflib.get_close_matches(name, map(str, row), n=1, cutoff=0.6)
                hint = f" (there is {near[0]!r})" if near else ""
                has = ", ".join(map(str, row)) or "none"
                raise InputError(
                    f"{where}: row {number} has no column {name!r}{hint}; its columns: {has}"
                )
            if not isinstance(row[name], kinds) or (
                isinstance(row[name], bool) and kinds is not bool
            ):
                wanted = kinds if isinstance(kinds, tuple) else (kinds,)
                raise InputError(
                    f"{where}: row {number}, column {name!r} is {row[name]!r}; it must be "
                    + " or ".join(kind.__name__ for kind in wanted)
                )


def read_json(path: Path) -> Any:
    """The content of a JSON file. InputError tells where it is damaged."""
    try:
        return parse_json(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: is damaged JSON: {error}; fetch it again") from error


def _parquet(path: Path) -> list[Row]:
    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path}: is no whole parquet file: {reason}; fetch it again") from error


def _json(path: Path) -> list[Row]:
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: must be a list of rows")
    return content


def _json_lines(path: Path) -> list[Row]:
    rows = []
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}; fetch it again") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(parse_json(line))
            except ValueError as error:
                raise InputError(f"{path}: line {number} is damaged JSON: {error}") from error
    return rows


def _csv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV: {error}; fetch it again") from error
