"""Tables: columns by any name, cells of several lines, and which line a mistake is in."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.pair_formats.csv_table import parse_columns, read_table
from data_pipelines.pair_formats.formats import read_rows

PATH = Path("pairs.csv")
HEADER = "video,prompt,chosen,rejected"
TEXT = st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: f"a{text}\u2028\r\nb")


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_cells_are_read_back(texts: list[tuple[str, str]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(HEADER.split(","))
    writer.writerows(["a.mp4", "<image>\nWhy?", *pair] for pair in texts)
    rows = read_table(PATH, file.getvalue(), {})
    assert [(row.chosen, row.rejected) for row in rows] == texts
    assert {(row.video, row.question) for row in rows} == {("a.mp4", "Why?")}


def test_a_line_ends_only_where_it_does_in_csv() -> None:
    text = f"{HEADER}\na.mp4,Why\u2028so?,x\x85,y\na.mp4,Why?,x\n"
    with pytest.raises(InputError, match="pairs.csv:3: 3 cells"):
        read_table(PATH, text, {})
    (row,) = read_table(PATH, text.rsplit("a.mp4", 1)[0], {})
    assert (row.question, row.chosen) == ("Why\u2028so?", "x\x85")


def test_columns_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfpath,q,good,bad,score,licence\r\na.mp4,Why?,x,y,3,MIT\r\n")
    columns = parse_columns("video=path,prompt=q,chosen=good,rejected=bad")
    name, (row,) = read_rows(path, columns=columns)
    assert name == "csv"
    assert (row.video, row.question, row.chosen, row.rejected) == ("a.mp4", "Why?", "x", "y")
    assert row.licence == "MIT" and row.left_out == ("score",)
    (plain,) = read_rows(path, columns=columns | {"rejected": ""})[1]
    assert plain.rejected is None and plain.left_out == ("bad", "score")


def test_a_mistake_is_named_with_the_line_its_row_begins_in() -> None:
    whole = f'{HEADER}\na.mp4,"Why\nso?",x,y\n'
    for last, message in (
        ("a.mp4,Why?,x,", r"pairs.csv:4: 'rejected' is ''"),
        ("a.mp4,Why?,x", r"pairs.csv:4: 3 cells, the header has 4"),
        ('a.mp4,"Why?,x,y', r"pairs.csv:4: not CSV"),
        (" ,Why?,x,y", r"pairs.csv:4: 'video' is ' '"),
    ):
        with pytest.raises(InputError, match=message):
            read_table(PATH, f"{whole}{last}", {})


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        InputError, match="'chosen' is not among 'video', 'prompt', 'good'.*chosen="
    ):
        read_table(PATH, "video,prompt,good\n", {})
    with pytest.raises(InputError, match="'rejected' is not .*rejected= where there is none"):
        read_table(PATH, "video,prompt,chosen\n", {})
    with pytest.raises(InputError, match="'chosen' is twice"):
        read_table(PATH, "video,prompt,chosen,chosen,rejected\n", {})
    with pytest.raises(InputError, match="'n' for 'id' is not among"):
        read_table(PATH, f"{HEADER}\n", {"id": "n"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video", "'video' is no FIELD=COLUMN"),
        ("film=a", "'film=a' is no FIELD=COLUMN; fields are video, prompt"),
        ("video=a,video=b", "each once"),
        ("video=", "'video' needs a column"),
    ],
)
def test_a_wrong_map_of_columns(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_columns(text)
