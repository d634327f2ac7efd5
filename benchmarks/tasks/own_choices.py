"""Multiple-choice questions of one's own: one JSON object a line.

    {"id": "q1", "video": "clip.mp4", "question": "What comes first?",
     "options": ["a ring", "a star"], "answer": "B",
     "groups": {"kind": "order"}, "segment": [3.0, 9.5]}

The last two may be left out. `answer` is the letter of the right option; the options bear none.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.choices import letters, rule_for, score_letter, summarise_accuracy
from benchmarks.tasks.item import Item
from benchmarks.tasks.tables import read_rows
from benchmarks.tasks.task import Scored, Task
from data_pipelines.errors import InputError

COLUMNS = {"id": str, "video": str, "question": str, "options": list, "answer": str}
KNOWN = {*COLUMNS, "groups", "segment"}
MOST_OPTIONS = 8
SUFFIX = "Answer with the option's letter from the given choices directly."


def read(path: Path) -> list[Item]:
    """Reads the file. InputError names the line that is wrong."""
    items: dict[str, Item] = {}
    for number, row in enumerate(read_rows(path, COLUMNS), start=1):
        where = f"{path}: row {number}"
        among = letters(len(row["options"]))
        segment = row.get("segment")
        if unknown := sorted(set(row) - KNOWN):
            raise InputError(f"{where}: {unknown[0]!r} is not known; leave it out")
        if not 2 <= len(among) <= MOST_OPTIONS or len(row["options"]) > MOST_OPTIONS:
            raise InputError(f"{where}: {len(row['options'])} options; must be 2 to {MOST_OPTIONS}")
        if row["answer"] not in tuple(among):
            raise InputError(
                f"{where}: answer {row['answer']!r}; must be one of {', '.join(among)}"
            )
        if row["id"] in items:
            raise InputError(f"{where}: id {row['id']!r} stands twice; give each its own")
        if not isinstance(row.get("groups", {}), dict):
            raise InputError(f"{where}: groups must be an object, as in {{'kind': 'order'}}")
        if segment is not None and not (
            isinstance(segment, list)
            and len(segment) == 2
            and all(isinstance(one, (int, float)) for one in segment)
            and segment[0] < segment[1]
        ):
            raise InputError(f"{where}: segment {segment!r}; must be [start, end] in seconds")
        items[row["id"]] = Item(
            id=row["id"],
            video=row["video"],
            granularity="comprehensive" if segment is None else "localized",
            question=row["question"],
            answer=row["answer"],
            chance=1 / len(among),
            segment=None if segment is None else (float(segment[0]), float(segment[1])),
            options=tuple(map(str, row["options"])),
            groups={str(axis): str(name) for axis, name in row.get("groups", {}).items()},
        )
    return list(items.values())


def prompt(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """The question, the options with letters, and how to answer."""
    among = letters(len(item.options))
    options = [f"{letter}. {option}" for letter, option in zip(among, item.options, strict=True)]
    return "\n".join([item.question, *options, SUFFIX])


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """Finds the letter by the protocol's rule, if that looks for so many options."""
    among = letters(len(item.options))
    return score_letter(said, item.answer, among, rule_for(protocol.letters, among), rng)


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """Plain accuracy."""
    return summarise_accuracy("accuracy", items, scored)


TASK = Task(
    name="own",
    metric="accuracy",
    percent=True,
    read=read,
    prompt=prompt,
    score=score,
    summarise=summarise,
    files="a .jsonl file of one's own",
)
