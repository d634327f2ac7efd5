"""Needle in a haystack of frames (V-NIAH of LongVA): which cells there are, and their scores.

A picture, the needle, is put among the first frames of one long film, and a question asks for what
is in it. The score is teacher-forced: the answer's tokens follow the prompt, and every one of them
must be the likeliest at its place; nothing is generated. Rules, prompts and files are those of
EvolvingLMMs-Lab/LongVA, vision_niah/eval_vision_niah.py. Needles are published as
`lmms-lab/v_niah_needles` (test-*.parquet: image, question, answer).
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from benchmarks.tasks.tables import find_file, read_rows
from data_pipelines.errors import InputError

PATTERNS = ("data/test-*.parquet", "test-*.parquet", "needles.jsonl")
TEXTS = {"question": str, "answer": str}


@dataclass(frozen=True, kw_only=True, eq=False)
class Needle:
    """A picture and what is asked about it.

    Attributes:
      picture: uint8 [height, width, 3], as it is stored; it goes the way of a frame.
      question: follows the frames at once: no newline is put before it; it has its own.
      answer: its tokens are what is scored, without the end of the turn.
    """

    picture: np.ndarray
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which lengths and depths are tried. As published: 200 to 3000 by 200, depth by 0.2.

    Attributes:
      fewest, most, step: frames of the haystack, the needle not counted.
      depth_step: depths are 0, `depth_step`, ... 1 (0 is before the first frame).
    """

    fewest: int = 200
    most: int = 3000
    step: int = 200
    depth_step: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.fewest <= self.most or self.step < 1:
            raise InputError(
                f"needle grid {self.fewest} to {self.most} by {self.step}: must be counts that rise"
            )
        if not 0 < self.depth_step <= 1:
            raise InputError(
                f"needle grid depth_step {self.depth_step}: must be above 0, at most 1"
            )

    @property
    def lengths(self) -> list[int]:
        """Frames of the haystack, ascending."""
        return list(range(self.fewest, self.most + 1, self.step))

    @property
    def depths(self) -> list[float]:
        """Parts of the haystack before the needle, ascending."""
        # As the source computes them: where the needle goes hangs on the last digit.
        depths = np.arange(0, 1 + self.depth_step, self.depth_step)
        return [float(depth) for depth in depths if depth <= 1 + 1e-9]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One question: `length` frames, and a needle (its number) before one of them."""

    length: int
    depth: float
    needle: int

    @property
    def before(self) -> int:
        """How many frames of the haystack stand before the needle."""
        return int(self.depth * self.length)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a model said to a question, and whether it begins with the answer's tokens."""

    said: str
    correct: bool


class ForcedModel(Protocol):
    """Anything that tells whether it would have said an answer."""

    @property
    def name(self) -> str:
        """Who answered: checkpoint and fingerprint."""
        ...

    def say(self, trial: Trial) -> Outcome:
        """Correct where the likeliest token is the answer's at every place of the answer."""
        ...


def trials(grid: Grid, needles: int) -> list[Trial]:
    """Every question: by length, then by depth, then by needle."""
    return [
        Trial(length=length, depth=depth, needle=needle)
        for length in grid.lengths
        for depth in grid.depths
        for needle in range(needles)
    ]


def is_said(likeliest: Sequence[int] | np.ndarray, answer: Sequence[int] | np.ndarray) -> bool:
    """Compares the likeliest tokens at the places of an answer [T] with its tokens [T]."""
    return bool(np.array_equal(np.asarray(likeliest), np.asarray(answer)))


def needle_map(grid: Grid, needles: int, said: Sequence[bool]) -> list[dict[str, float]]:
    """The accuracy of each cell, as LongVA's all_accuracies.json has it.

    Args:
      grid: the lengths and depths.
      needles: how many questions a cell has.
      said: what became of each of `trials(grid, needles)`.

    Raises:
      InputError: not one result for each.
    """
    asked = trials(grid, needles)
    if len(said) != len(asked) or not asked:
        raise InputError(f"{len(said)} needle results for {len(asked)} questions; ask the rest")
    return [
        {
            "Num. Frame": asked[first].length,
            # To whole tens, as there: with a finer grid two depths may bear one number.
            "Frame Depth": round(asked[first].depth * 100, -1),
            "Score": sum(said[first : first + needles]) / needles,
        }
        for first in range(0, len(asked), needles)
    ]


def summarise_map(cells: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The mean over cells, and the map as rows of depth and columns of length for a plot."""
    lengths = list(dict.fromkeys(cell["Num. Frame"] for cell in cells))
    rows = len(cells) // len(lengths)
    scores = [cell["Score"] for cell in cells]
    return {
        "metric": "vniah_accuracy",
        "value": float(np.mean(scores)),
        "lengths": lengths,
        "depths": [cell["Frame Depth"] for cell in cells[:rows]],
        "map": [scores[row::rows] for row in range(rows)],
    }


def write_map(folder: Path, cells: Sequence[dict[str, float]]) -> None:
    """Writes all_accuracies.json and avg_accuracy.txt, the files that LongVA leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all_accuracies.json").write_text(json.dumps(list(cells), indent=4), "utf-8")
    average = float(np.mean([cell["Score"] for cell in cells]))
    (folder / "avg_accuracy.txt").write_text(f"Average Accuracy: {average}\n", "utf-8")


def read_needles(path: Path) -> list[Needle]:
    """Reads the published table, or JSON lines of one's own with the picture's file name as image.

    Raises:
      InputError: see `tables.py`; or a picture is missing or damaged.
    """
    table = find_file(path, PATTERNS, "the needles")
    found = []
    own = table.suffix == ".jsonl"
    for number, row in enumerate(
        read_rows(table, TEXTS | {"image": str if own else dict}), start=1
    ):
        try:
            image = row["image"]
            data = (table.parent / image).read_bytes() if own else image["bytes"]
            picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        except (OSError, KeyError, TypeError, UnidentifiedImageError) as error:
            raise InputError(f"{table}: row {number}: its image cannot be read: {error}") from error
        found.append(Needle(picture=picture, question=row["question"], answer=row["answer"]))
    return found
