"""LongVideoBench, validation: video before the text, or frames and subtitles in turn.

Published as `longvideobench/LongVideoBench` (on request): validation-*.parquet or lvb_val.json,
videos/, subtitles/. Prompts, guesses and aggregation are those of lmms-eval 0.7.3.
"""

import random
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.choices import letters, score_letter, summary
from benchmarks.tasks.interleave import frame_numbers, frame_times, interleave, read_spans
from benchmarks.tasks.item import Item
from benchmarks.tasks.tables import Row, check_rows, find_file, read_rows
from benchmarks.tasks.task import Scored, Task
from data_pipelines.errors import InputError

NUMBER = (int, float)
OPTIONS = tuple(f"option{number}" for number in range(5))
COLUMNS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("id", "video_path", "question", "subtitle_path"), str),
    "correct_choice": int,
    "duration": NUMBER,
    "duration_group": (int, str),
    "question_category": str,
    "starting_timestamp_for_subtitles": NUMBER,
}
PATTERNS = ("data/validation-*.parquet", "validation-*.parquet", "lvb_val.json")
NO_OPTION = "N/A"  # fills up the five
AFTER = "Answer with the option's letter from the given choices directly.\n"
METRIC = "lvb_acc"


def read(path: Path, *, subtitles: bool) -> list[Item]:
    """Reads the published table.

    Args:
      path: it, or the folder it is published in.
      subtitles: the task shows them: every item's file must be there.

    Raises:
      InputError: see `tables.py`; or subtitles are missing.
    """
    table = find_file(path, PATTERNS, "LongVideoBench")
    rows = [_with_options(row) for row in read_rows(table, COLUMNS)]
    check_rows(table, rows, dict.fromkeys(OPTIONS, str))
    folder = _subtitle_folder(path, table) if subtitles else None
    return [_item(table, number, row, folder) for number, row in enumerate(rows, start=1)]


def _item(table: Path, number: int, row: Row, folder: Path | None) -> Item:
    options = tuple(row[name] for name in OPTIONS if row[name] != NO_OPTION)
    if not 0 <= row["correct_choice"] < len(options):
        raise InputError(
            f"{table}: row {number}: correct_choice {row['correct_choice']} is none of its "
            f"{len(options)} options"
        )
    file = folder / row["subtitle_path"] if folder else None
    if file is not None and not file.is_file():
        raise InputError(f"{file}: no such file; {table.name} names it; unpack subtitles.tar there")
    return Item(
        id=row["id"],
        video=f"videos/{row['video_path']}",
        kind=row["question_category"],
        question=row["question"],
        answer=letters(5)[row["correct_choice"]],
        chance=1 / len(options),
        options=options,
        groups={
            "duration_group": str(row["duration_group"]),
            "question_category": row["question_category"],
        },
        subtitles=file,
        row={
            "duration": row["duration"],
            "starting_timestamp_for_subtitles": row["starting_timestamp_for_subtitles"],
            # A guess is drawn from the options before the first gap.
            "before_gap": sum(1 for _ in takewhile(lambda name: row[name] != NO_OPTION, OPTIONS)),
        },
    )


def _with_options(row: Row) -> Row:
    """The JSON form has a list of candidates in place of the five columns."""
    if isinstance(row.get("candidates"), list) and OPTIONS[0] not in row:
        given = [*row["candidates"], *[NO_OPTION] * len(OPTIONS)]
        return row | dict(zip(OPTIONS, given, strict=False))
    return row


def _subtitle_folder(path: Path, table: Path) -> Path:
    places = [path / "subtitles"] if path.is_dir() else []
    places += [table.parent / "subtitles", table.parent.parent / "subtitles"]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(f"{places[0]}: no such folder; unpack the data set's subtitles.tar there")


def prompt(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """The question, its options, and how to answer."""
    options = [
        f"{letter}. {option}" for letter, option in zip(letters(5), item.options, strict=False)
    ]
    return "\n".join([item.question, *options, AFTER])


def prompt_interleaved(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """Frames and subtitles in turn, then as `prompt`."""
    assert item.subtitles is not None
    duration = item.row["duration"]
    shown = interleave(
        frame_times(duration, protocol.interleaved_frames),
        read_spans(item.subtitles, duration),
        item.row["starting_timestamp_for_subtitles"],
    )
    return f"{shown}\n{prompt(item, protocol, video)}"


def frames_interleaved(item: Item, protocol: Protocol, video: VideoFacts) -> list[int]:
    """The frames between the subtitles."""
    numbers = frame_numbers(item.row["duration"], video.fps, protocol.interleaved_frames)
    return [min(number, video.frames - 1) for number in numbers]


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """Finds a letter by the protocol's rule; that of this benchmark guesses where it finds none."""
    among = letters(item.row["before_gap"])
    return score_letter(said, item.answer, among, protocol.letters, rng)


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """Accuracy, 0 to 1, to 5 digits.

    The harness counts every item in two groups and weighs the groups by their size. That is plain
    accuracy; the sum is done its way, since the last digit may hang on it.
    """
    counts: dict[str, list[int]] = {}
    for item, one in zip(items, scored, strict=True):
        for group in item.groups.values():
            count = counts.setdefault(group, [0, 0])
            count[0] += 1
            count[1] += one.correct
    weighed = sum((right / total) * total for total, right in counts.values())
    everything = sum(total for total, _ in counts.values())
    value = round(weighed / everything, 5) if everything else 0.0
    return summary(METRIC, {METRIC: value}, items, scored)


TASKS = (
    Task(
        name="longvideobench_val_v",
        metric=METRIC,
        percent=False,
        read=partial(read, subtitles=False),
        prompt=prompt,
        score=score,
        summarise=summarise,
        files="validation-*.parquet or lvb_val.json",
        items=1337,
    ),
    Task(
        name="longvideobench_val_i",
        metric=METRIC,
        percent=False,
        read=partial(read, subtitles=True),
        prompt=prompt_interleaved,
        score=score,
        summarise=summarise,
        frames=frames_interleaved,
        interleaved=True,
        files="validation-*.parquet or lvb_val.json, subtitles/*.json",
        items=1337,
    ),
)
