"""Video-MME, with and without subtitles: prompts, scores and aggregation of lmms-eval 0.7.3.

Published as `lmms-eval/Video-MME`: videomme/test-*.parquet, data/VIDEO.mp4, subtitle/VIDEO.srt. The
900 videos have 3 questions each.
"""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.choices import score_letter, summarise_accuracy
from benchmarks.tasks.item import Item
from benchmarks.tasks.subtitle_choice import subtitle_text
from benchmarks.tasks.tables import find_file, read_rows
from benchmarks.tasks.task import Scored, Task
from data_pipelines.errors import InputError

COLUMNS = {
    **dict.fromkeys(("videoID", "question_id", "question", "answer"), str),
    **dict.fromkeys(("duration", "domain", "sub_category", "task_type"), str),
    "options": list,
}
PATTERNS = ("videomme/test-*.parquet", "data/test-*.parquet", "test-*.parquet")
GROUPS = ("duration", "domain", "sub_category", "task_type")
LETTERS = "ABCD"
METRIC = "videomme_perception_score"

# It speaks of subtitles whether there are any or not.
BEFORE = (
    "Select the best answer to the following multiple-choice question based on the video and the "
    "subtitles. Respond with only the letter (A, B, C, or D) of the correct option."
)
BEFORE_SUBTITLES = "This video's subtitles are listed below: \n"
NO_SUBTITLES = "No subtitles available"
AFTER = "\nAnswer with the option's letter from the given choices directly."
AFTER_SHORT = "The best answer is:"


def read(path: Path, *, subtitles: bool, duration: str | None = None) -> list[Item]:
    """Reads the published table.

    Args:
      path: it, or the folder it is published in.
      subtitles: the task shows them: there must be a folder `subtitle`.
      duration: keep only the videos of this one.

    Raises:
      InputError: see `tables.py`; or there is no folder of subtitles.
    """
    table = find_file(path, PATTERNS, "Video-MME")
    folder = _subtitle_folder(path, table) if subtitles else None
    items = []
    for number, row in enumerate(read_rows(table, COLUMNS), start=1):
        if row["answer"] not in tuple(LETTERS) or len(row["options"]) != len(LETTERS):
            raise InputError(
                f"{table}: row {number} has {len(row['options'])} options and the answer "
                f"{row['answer']!r}; must be 4 options and one of A to D"
            )
        file = folder / f"{row['videoID']}.srt" if folder else None
        items.append(
            Item(
                id=row["question_id"],
                video=f"data/{row['videoID']}.mp4",
                kind=row["task_type"],
                question=row["question"],
                answer=row["answer"],
                chance=1 / len(LETTERS),
                options=tuple(row["options"]),
                groups={axis: row[axis] for axis in GROUPS},
                subtitles=file if file and file.exists() else None,
            )
        )
    if folder and not any(item.subtitles for item in items):
        count = len({item.video for item in items})
        raise InputError(
            f"{folder}: has no subtitles of any of the {count} videos; each must be VIDEO.srt there"
        )
    return [item for item in items if duration in (None, item.groups["duration"])]


def _subtitle_folder(path: Path, table: Path) -> Path:
    places = [path / "subtitle"] if path.is_dir() else []
    places += [table.parent / "subtitle", table.parent.parent / "subtitle"]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(
        f"{places[0]}: no such folder; unpack the data set's subtitle.zip there, or every question "
        "would be asked without subtitles"
    )


def prompt(item: Item, protocol: Protocol, video: VideoFacts, *, subtitles: bool) -> str:
    """The instruction, the question and its options, and how to answer."""
    question = "\n".join([BEFORE, item.question, *item.options])
    if not subtitles:
        after = AFTER_SHORT if protocol.prompts == "0.7.3 llava_vid" else AFTER
        return f"{question}\n{after}"
    text = NO_SUBTITLES
    if item.subtitles is not None:
        text = subtitle_text(
            item.subtitles, video, protocol.subtitle_points, protocol.subtitle_order
        )
    return f"{BEFORE_SUBTITLES}{text}\n{question}\n{AFTER_SHORT}"


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """Finds one of A to D by the protocol's rule."""
    return score_letter(said, item.answer, LETTERS, protocol.letters, rng)


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """Accuracy over all items, 0 to 100; the three durations have equally many."""
    return summarise_accuracy(METRIC, items, scored)


def _task(name: str, *, subtitles: bool, duration: str | None = None) -> Task:
    files = "videomme/test-*.parquet" + (", subtitle/*.srt" if subtitles else "")
    return Task(
        name=name,
        metric=METRIC,
        percent=True,
        read=partial(read, subtitles=subtitles, duration=duration),
        prompt=partial(prompt, subtitles=subtitles),
        score=score,
        summarise=summarise,
        files=files,
        items=900 if duration else 2700,
    )


TASKS = (
    _task("video_mme", subtitles=False),
    _task("video_mme_subtitles", subtitles=True),
    _task("video_mme_long", subtitles=False, duration="long"),
    _task("video_mme_long_subtitles", subtitles=True, duration="long"),
)
