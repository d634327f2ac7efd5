"""The demo's questions about its held-out videos, as a task like any other.

    tpo demo
    tpo eval --tasks=demo --data=runs/demo/truth/heldout.json --videos=runs/demo/videos/heldout \
        --checkpoint=runs/demo/export

The same questions as `tpo eval` asks of the demo's run, about frames spread over each whole video.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.scoring import is_correct
from benchmarks.tasks.choices import summarise_accuracy
from benchmarks.tasks.item import Item
from benchmarks.tasks.synthetic import questions
from benchmarks.tasks.tables import find_file
from benchmarks.tasks.task import Scored, Task
from data_pipelines.synthetic import read_truth

# As configs/demo.py has them.
SEED = 0
PER_VIDEO = 4
METRIC = "accuracy"


def read(path: Path) -> list[Item]:
    """Questions about the videos that a truth file tells of. InputError if it is none."""
    file = find_file(path, ("truth/heldout.json", "heldout.json"), "the demo's truth")
    asked = questions(
        read_truth(file),
        seed=SEED,
        localized_per_video=PER_VIDEO,
        comprehensive_per_video=PER_VIDEO,
    )
    return [
        replace(item, groups={"granularity": item.granularity, "kind": item.kind}) for item in asked
    ]


def prompt(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """The question alone."""
    return item.question


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """Right is what is the right sentence, but for case, white space and final punctuation."""
    return Scored(
        predicted=said.strip(), correct=is_correct(said, item.answer), parsed=bool(said.strip())
    )


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """Plain accuracy, 0 to 100."""
    return summarise_accuracy(METRIC, items, scored)


TASK = Task(
    name="demo",
    metric=METRIC,
    percent=True,
    read=read,
    prompt=prompt,
    score=score,
    summarise=summarise,
    files="the truth of the demo's held-out videos",
)
