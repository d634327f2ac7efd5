"""A file of JSON objects, one a line, to which a run adds as it goes and which survives its end."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Adds lines; they are on disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line, in order; none if there is no file.

    Raises:
      InputError: a line is damaged elsewhere than in what follows the last newline; names it.
    """
    if not path.exists():
        return []
    # A line is whole once its newline is there: what follows the last one was cut off.
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            found.append(parse_json(line))
        except ValueError as error:
            raise damaged(path, number) from error
    return found


def damaged(path: Path, number: int) -> InputError:
    """What to say of a line that is not what it should be."""
    return InputError(f"{path}: line {number} is damaged; delete that line")


def cut_torn_line(path: Path) -> None:
    """Removes what follows the last newline, so that the next line begins on a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes() if path.exists() else b""
    if not data.endswith(b"\n") and data:
        os.truncate(path, data.rfind(b"\n") + 1)
