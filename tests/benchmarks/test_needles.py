"""The needle's grid, files and map, beside what LongVA's own run left."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.tasks.needles import (
    Grid,
    Trial,
    is_said,
    needle_map,
    read_needles,
    summarise_map,
    trials,
    write_map,
)
from data_pipelines.errors import InputError
from tests.benchmarks.made_tasks import write_needles

ASKED = "\nFind the frame of a scientist. The scientist is a...\nA. Bird\nB. Panda"


def test_the_published_grid() -> None:
    grid = Grid()
    asked = trials(grid, 5)
    assert (len(grid.lengths), len(grid.depths), len(asked)) == (15, 6, 450)
    assert asked[0] == Trial(length=200, depth=0.0, needle=0)
    # At depth 1 the needle is the last of 3001 frames.
    assert (asked[-1].length, asked[-1].before, asked[-1].needle) == (3000, 3000, 4)
    assert [trial.before for trial in asked[:30:5]] == [0, 40, 80, 120, 160, 200]
    small = Grid(fewest=20, most=300, step=20, depth_step=0.1)  # the source's defaults
    assert (len(small.lengths), len(small.depths)) == (15, 11)
    assert [Trial(length=20, depth=d, needle=0).before for d in small.depths] == list(
        range(0, 21, 2)
    )


def test_the_map_and_its_files(tmp_path: Path) -> None:
    grid = Grid(fewest=10, most=30, step=10, depth_step=0.5)
    said = [
        trial.length < 30 and not (trial.depth == 1 and trial.needle) for trial in trials(grid, 2)
    ]
    cells = needle_map(grid, 2, said)
    assert cells[1] == {"Num. Frame": 10, "Frame Depth": 50.0, "Score": 1.0}
    told = summarise_map(cells)
    assert told["lengths"] == [10, 20, 30] and told["depths"] == [0.0, 50.0, 100.0]
    assert told["map"] == [[1, 1, 0], [1, 1, 0], [0.5, 0.5, 0]]
    assert told["value"] == pytest.approx(5 / 9)
    write_map(tmp_path / "out", cells)
    assert json.loads((tmp_path / "out/all_accuracies.json").read_text("utf-8")) == cells
    assert (
        (tmp_path / "out/avg_accuracy.txt").read_text("utf-8").startswith("Average Accuracy: 0.55")
    )


def test_every_question_needs_its_result() -> None:
    with pytest.raises(InputError, match="3 needle results for 450 questions"):
        needle_map(Grid(), 5, [True] * 3)


def test_every_token_must_be_the_likeliest() -> None:
    assert is_said(np.array([3, 4]), [3, 4])
    assert not is_said([3, 5], [3, 4])
    assert not is_said([3], [3, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fewest": 0}, "needle grid 0 to 3000 by 200"),
        ({"most": 100}, "needle grid 200 to 100 by 200"),
        ({"step": 0}, "needle grid 200 to 3000 by 0"),
        ({"depth_step": 0.0}, "depth_step 0.0: must be above 0"),
    ],
)
def test_grids_that_are_none(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Grid(**change)


def test_published_needles_and_own(tmp_path: Path) -> None:
    red = Image.new("RGBA", (8, 6), (255, 0, 0, 255))
    write_needles(tmp_path, [(red, ASKED, "B"), (red, "\nWhat colour?", "Red")])
    published = read_needles(tmp_path)
    assert [needle.answer for needle in published] == ["B", "Red"]
    assert published[0].question == ASKED
    assert published[0].picture.shape == (6, 8, 3) and published[0].picture.dtype == np.uint8
    red.save(tmp_path / "red.png")
    row = {"image": "red.png", "question": "\nWhat colour?", "answer": "Red"}
    (tmp_path / "needles.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    (own,) = read_needles(tmp_path / "needles.jsonl")
    assert np.array_equal(own.picture, published[1].picture)
    (tmp_path / "red.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="needles.jsonl: row 1: its image cannot be read"):
        read_needles(tmp_path / "needles.jsonl")
    row["image"] = "blue.png"
    (tmp_path / "needles.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(
        InputError, match="needles.jsonl: row 1: its image cannot be read.*blue.png"
    ):
        read_needles(tmp_path / "needles.jsonl")
