"""What is done: an append-only file, a line a unit of work, that survives being cut off.

Of several hosts each has a file of its own, and reads those of the others when it begins.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json


class Ledger:
    """Results by key. A line is a whole result; a torn last line is forgotten and done again."""

    def __init__(self, path: Path, others: Iterable[Path] = ()):
        """Args: the file, made at the first `add`; others to read, with what is done too.

        Raises:
          InputError: a line that has an end is no result; names it.
        """
        self._path = path
        self._done: dict[str, Any] = {}
        self._drop_torn_line()
        for one in sorted({path, *others}):
            self._read(one)

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        # Not splitlines: a text may hold U+2028 and its like, which JSON leaves as they are.
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
            try:
                entry = parse_json(line)
                self._done[entry["key"]] = entry["result"]
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{path}:{number}: damaged, not a line of a ledger; delete the line, and "
                    "what it held is done again"
                ) from error

    def _drop_torn_line(self) -> None:
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.truncate(self._path, whole)

    def __contains__(self, key: str) -> bool:
        return key in self._done

    def __getitem__(self, key: str) -> Any:
        return self._done[key]

    def __len__(self) -> int:
        return len(self._done)

    def add(self, key: str, result: Any) -> None:
        """Record a finished unit; on disk when this returns."""
        line = json.dumps({"key": key, "result": result}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._done[key] = parse_json(line)["result"]
