"""Asks a model the items of a task, remembers what it said, and sums it up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record_file import append_lines, cut_torn_line, damaged, read_lines
from benchmarks.scoring import is_correct
from benchmarks.statistics import accuracy_interval, paired_difference
from benchmarks.tasks.item import Item
from data_pipelines.answering import Request, VideoModel
from data_pipelines.artefacts import fingerprint
from data_pipelines.errors import InputError

Progress = Callable[[int, int, str], None]
FramesOf = Callable[[Item], tuple[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a model said to an item; one line of the record file.

    Attributes:
      item: the item's id.
      model: the model's name.
      said: its answer, as it came.
      correct: whether that was right.
      asked: fingerprint of the item, the video's bytes and the frames shown. An answer to anything
        else under the same id is not taken for this one.
    """

    item: str
    model: str
    said: str
    correct: bool
    asked: str


def run_task(
    items: Sequence[Item],
    model: VideoModel,
    frames_of: FramesOf,
    record: Path,
    progress: Progress | None = None,
    *,
    recorded: Sequence[Path] = (),
) -> list[Record]:
    """Asks every item, a video at a time, and returns a record of each, in the order of the items.

    What is recorded already for a model of this name is not asked again, so a run that was killed
    goes on where it was. Several models may share a record file, one after another.

    Args:
      items: what to ask.
      model: whom to ask; all questions about a video go to it in one call.
      frames_of: item -> (video id, positions of the stored frames to show for it, int [F]).
      record: JSON lines, appended to as each video is finished.
      recorded: other files of such lines, of what is not to be asked again either.
      progress: called as `progress(videos done, videos in all, file name)`.

    Raises:
      InputError: the record is damaged elsewhere than in its last line.
    """
    cut_torn_line(record)
    lines = [line for path in (record, *recorded) for line in read_records(path)]
    known = {line.asked: line for line in lines if line.model == model.name}
    by_video: dict[str, list[Item]] = {}
    for item in items:
        by_video.setdefault(item.video, []).append(item)
    of_item: dict[str, Record] = {}
    for done, (video, asked_items) in enumerate(by_video.items(), start=1):
        shown = [frames_of(item) for item in asked_items]
        asked = [_fingerprint(i, *seen) for i, seen in zip(asked_items, shown, strict=True)]
        if not all(one in known for one in asked):
            requests = [
                Request(question=item.question, positions=positions)
                for item, (_, positions) in zip(asked_items, shown, strict=True)
            ]
            answers = model.answer(shown[0][0], requests)
            new = [
                Record(
                    item=item.id,
                    model=model.name,
                    said=said.text,
                    correct=is_correct(said.text, item.answer),
                    asked=one,
                )
                for item, said, one in zip(asked_items, answers, asked, strict=True)
            ]
            append_lines(record, map(asdict, new))
            known |= {line.asked: line for line in new}
        of_item |= {item.id: known[one] for item, one in zip(asked_items, asked, strict=True)}
        if progress:
            progress(done, len(by_video), video)
    return [of_item[item.id] for item in items]


def read_records(path: Path) -> list[Record]:
    """Every whole line of a record file, in order; none if there is no file."""
    records = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            records.append(Record(**line))
        except TypeError as error:
            raise damaged(path, number) from error
    return records


def _fingerprint(item: Item, video_id: str, positions: np.ndarray) -> str:
    return fingerprint(
        {
            "item": [item.id, item.question, item.answer],
            "video": video_id,
            "positions": [int(position) for position in positions],
        }
    )


def _groups(items: Sequence[Item]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Positions of the items: of all and by granularity, and by kind in the same order."""
    granularity = np.array([item.granularity for item in items])
    kind = np.array([item.kind for item in items])
    compared = {"all": np.arange(len(items))}
    kinds: dict[str, np.ndarray] = {}
    for one in sorted(set(granularity.tolist()), reverse=True):  # localized first
        compared[one] = np.flatnonzero(granularity == one)
        for name in sorted(set(kind[granularity == one].tolist())):
            kinds[name] = np.flatnonzero(kind == name)
    return compared, kinds


def summarise(items: Sequence[Item], records: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """Sums up what models said to the same items, as plain data for a JSON file or a page.

    Args:
      items: the task, not empty.
      records: for each model (its label in the result: "base", "tpo") what `run_task` returned. The
        first is what the others are compared with.

    Returns:
      items, videos: how many.
      models: label -> the model's name.
      groups: "all", then each granularity, then each kind -> number of items.
      chance: group -> accuracy of a guesser, where every item of the group has a chance.
      accuracy: label -> group -> {correct, value, low, high}: the 95% interval over videos.
      difference: label of each but the first -> "all" and each granularity -> {value, low, high}:
        its accuracy less that of the first, on the same items.

    Raises:
      InputError: a model's records are not those of the items.
    """
    ids = [item.id for item in items]
    for label, answered in records.items():
        if not ids or [line.item for line in answered] != ids:
            raise InputError(f"the records of {label!r} are not of these items; run the task again")
    compared, kinds = _groups(items)
    groups = compared | kinds
    correct = {
        label: np.array([line.correct for line in lines]) for label, lines in records.items()
    }
    videos = np.array([item.video for item in items])
    base, *others = records
    chances = {group: [items[i].chance for i in at] for group, at in groups.items()}
    return {
        "items": len(items),
        "videos": len(set(videos.tolist())),
        "models": {label: lines[0].model for label, lines in records.items()},
        "groups": {group: len(at) for group, at in groups.items()},
        "chance": {
            group: float(np.mean([c for c in chance if c is not None]))
            for group, chance in chances.items()
            if None not in chance
        },
        "accuracy": {
            label: {
                group: {"correct": int(right[at].sum())}
                | asdict(accuracy_interval(right[at], videos[at].tolist()))
                for group, at in groups.items()
            }
            for label, right in correct.items()
        },
        "difference": {
            label: {
                group: asdict(
                    paired_difference(correct[base][at], correct[label][at], videos[at].tolist())
                )
                for group, at in compared.items()
            }
            for label in others
        },
    }
