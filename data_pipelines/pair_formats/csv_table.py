"""A table with a header: one row a pair, columns by any name (`--columns`)."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.errors import InputError
from data_pipelines.pair_formats import row as rows
from data_pipelines.pair_formats.row import Row

NEEDED = ("video", "prompt", "chosen", "rejected")
FIELDS = (*NEEDED, "id", "granularity", *rows.ORIGIN)
LARGEST_CELL = 2**30  # characters; the library's own limit is shorter than some answers


def parse_columns(text: str) -> dict[str, str]:
    """Reads "video=path,prompt=question,rejected=" into field -> column ("" for no column).

    Raises:
      InputError: a part is no FIELD=COLUMN, or the field is unknown or said twice.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        field, equals, column = part.partition("=")
        if not equals or field not in FIELDS or field in columns:
            raise InputError(
                f"--columns: {part!r} is no FIELD=COLUMN; fields are {', '.join(FIELDS)}, each once"
            )
        if not column and field in NEEDED and field != "rejected":
            raise InputError(f"--columns: {field!r} needs a column; only 'rejected' can do without")
        columns[field] = column
    return columns


def read_table(path: Path, text: str, columns: Mapping[str, str]) -> list[Row]:
    """Every row of a table.

    Args:
      path: for messages.
      text: the file's content.
      columns: field -> column; a field that is not in it has a column of its own name. "" for
        "rejected" says that there are only answers to learn.

    Raises:
      InputError: a column is not there, or a row is wrong; names file and line.
    """
    csv.field_size_limit(LARGEST_CELL)
    # The library counts lines itself; newline="" leaves those within a cell as they are.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        places = _places(path, header, columns)
        found, begins = [], reader.line_num + 1
        for cells in reader:
            where, begins = f"{path}:{begins}", reader.line_num + 1
            if not cells:
                continue  # an empty line
            if len(cells) != len(header):
                raise InputError(f"{where}: {len(cells)} cells, the header has {len(header)}")
            entry = {field: cells[place] for field, place in places.items()}
            rest = [name for i, name in enumerate(header) if i not in places.values()]
            found.append(_row(entry, where, tuple(rest)))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from error
    return found


def _places(path: Path, header: list[str], columns: Mapping[str, str]) -> dict[str, int]:
    places = {}
    for field in FIELDS:
        column = columns.get(field, field)
        if column == "" or (field not in NEEDED and field not in columns and column not in header):
            continue
        if header.count(column) != 1:
            times = "twice or more" if column in header else "not"
            raise InputError(
                f"{path}:1: the column {column!r} for {field!r} is {times} among "
                f"{', '.join(map(repr, header)) or 'nothing'}; --columns={field}=NAME says which"
                + (" (rejected= where there is none)" if field == "rejected" else "")
            )
        places[field] = header.index(column)
    return places


def _row(entry: dict[str, str], where: str, rest: tuple[str, ...]) -> Row:
    prompt = rows.take_text(entry, "prompt", where)
    return Row(
        where=where,
        video=rows.take_text(entry, "video", where),
        question=rows.without_marks(prompt, where, at_most=None),
        chosen=rows.take_text(entry, "chosen", where),
        rejected=rows.take_text(entry, "rejected", where) if "rejected" in entry else None,
        left_out=rest + rows.left_out(entry, NEEDED),
        **rows.take_origin(entry, where),
    )
