"""MVBench: prompts, scores and aggregation of lmms-eval 0.7.3.

Published as `OpenGVLab/MVBench`: json/TASK.json, and the videos under the folders of FOLDERS. In
episodic_reasoning a "video" is a folder of frames, 3 a second.
"""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.choices import letters, summary
from benchmarks.tasks.item import Item
from benchmarks.tasks.tables import find_file, read_rows
from benchmarks.tasks.task import Scored, Task
from data_pipelines.errors import InputError

FOLDERS = {
    "object_interaction": "star/Charades_segment",
    "action_sequence": "star/Charades_segment",
    "action_prediction": "star/Charades_segment",
    "action_localization": "sta/sta_video_segment",
    "moving_count": "clevrer/video_validation",
    "fine_grained_pose": "nturgbd_convert",
    "character_order": "perception/videos",
    "object_shuffle": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "moving_direction": "clevrer/video_validation",
    "episodic_reasoning": "tvqa/video_fps3_hq_segment",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "moving_attribute": "clevrer/video_validation",
    "action_antonym": "ssv2_video_mp4",
    "unexpected_action": "FunQA_test/test",
    "counterfactual_inference": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "action_count": "perception/videos",
}
COLUMNS = {"video": str, "question": str, "candidates": list, "answer": str}
MOST_OPTIONS = 5
AFTER = "Only give the best option.\n"
METRIC = "mvbench_accuracy"

_LETTER_FIRST = re.compile(r"^([A-E])\.\s*(.+)$", re.IGNORECASE)
_LETTER_ALONE = re.compile(r"\b([A-E])\b", re.IGNORECASE)
_NUMBER_COMMA = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# How many full stops are taken out: the harness hands the flag re.UNICODE, 32, to where a count is.
_MOST_STOPS = 32


def read(path: Path) -> list[Item]:
    """Reads the twenty task files of the folder, or the one file that is given.

    Raises:
      InputError: see `tables.py`; a task's file is missing; an answer is none of the candidates.
    """
    return [item for task, file in _files(path) for item in _items(task, file)]


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        if path.stem not in FOLDERS:
            raise InputError(f"{path}: must bear a task of MVBench's name, as {min(FOLDERS)}.json")
        yield path.stem, path
        return
    for task in FOLDERS:
        patterns = (f"json/{task}.json", f"{task}.json", f"{task}/*.parquet", f"{task}.parquet")
        yield task, find_file(path, patterns, f"MVBench's {task}")


def _items(task: str, file: Path) -> Iterator[Item]:
    for number, row in enumerate(read_rows(file, COLUMNS), start=1):
        options = tuple(map(str, row["candidates"]))
        if row["answer"] not in options or len(options) > MOST_OPTIONS:
            raise InputError(
                f"{file}: row {number}: the answer {row['answer']!r} must be one of at most "
                f"{MOST_OPTIONS} candidates"
            )
        yield Item(
            id=f"{task}/{number}",
            video=f"{FOLDERS[task]}/{row['video']}",
            kind=task,
            question=row["question"],
            answer=letters(len(options))[options.index(row["answer"])],
            chance=1 / len(options),
            options=options,
            groups={"task": task},
        )


def prompt(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """The question, its options, and how to answer."""
    among = zip(letters(len(item.options)), item.options, strict=True)
    options = "".join(f"({letter}) {option}\n" for letter, option in among)
    return f"Question:{item.question}\nOption:\n{options}{AFTER}"


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """Finds a letter A to E by MVBench's own rule, whatever the protocol says."""
    predicted = find_letter(said)
    return Scored(
        predicted=predicted,
        correct=predicted == item.answer,
        parsed=predicted in tuple("ABCDE"),
        counted=said != "",
    )


def find_letter(said: str) -> str:
    """The letter of "B. text", or else the first that stands alone: the article "a" is one too.

    Where there is none it returns the cleaned text, in lower case, as the harness compares it.
    """
    first = _LETTER_FIRST.match(said.strip())
    if first:
        return first[1].upper()
    text = said.replace("\n", " ").replace("\t", " ").strip()
    text = _without_punctuation(text)
    for mark in ("'", '"', ")", "("):
        text = text.strip(mark)
    text = text.strip().lower()
    alone = _LETTER_ALONE.search(text)
    return alone[1].upper() if alone else text


def _without_punctuation(text: str) -> str:
    """Marks beside a space go, the others become one; full stops go unless a digit follows."""
    numbers = _NUMBER_COMMA.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside or numbers else " ")
    return _STOP.sub("", cleaned, count=_MOST_STOPS)


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """The mean over tasks of their accuracies, 0 to 100, and each task's.

    An empty answer counts as not asked, as in the harness.
    """
    counts: dict[str, list[int]] = {item.groups["task"]: [0, 0] for item in items}
    for item, one in zip(items, scored, strict=True):
        if one.counted:
            counts[item.groups["task"]][0] += 1
            counts[item.groups["task"]][1] += one.correct
    each = {
        f"mvbench_{task}": 100 * right / total if total else 0.0
        for task, (total, right) in counts.items()
    }
    metrics = {METRIC: sum(each.values()) / len(each) if each else 0.0} | each
    return summary(METRIC, metrics, items, scored)


TASK = Task(
    name="mvbench",
    metric=METRIC,
    percent=True,
    read=read,
    prompt=prompt,
    score=score,
    summarise=summarise,
    files="json/TASK.json of its twenty tasks",
    items=4000,
)
