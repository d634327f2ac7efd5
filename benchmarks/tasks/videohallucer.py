"""VideoHallucer: pairs of yes/no questions, of which the second asks for what is not there.

Published as `ColorfulAI/VideoHallucer`: SUBSET/SUBSET.json and SUBSET/videos/. Prompt and scores
are those of patrick-tssn/VideoHallucer (evaluations/evaluation_utils.py).
"""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.choices import summary
from benchmarks.tasks.item import Item
from benchmarks.tasks.tables import check_rows, find_file, read_rows
from benchmarks.tasks.task import Scored, Task
from data_pipelines.errors import InputError

SUBSETS = (
    "object_relation",
    "temporal",
    "semantic_detail",
    "external_factual",
    "external_nonfactual",
)
SIDES = ("basic", "hallucination")
COLUMNS = dict.fromkeys(SIDES, dict)
ASKED = dict.fromkeys(("video", "question", "answer"), str)
AFTER = "\nAnswer the question using 'yes' or 'no'."
METRIC = "videohallucer_overall"


def read(path: Path) -> list[Item]:
    """Reads the five subsets. InputError: see `tables.py`; or an answer is neither yes nor no."""
    if path.is_file():
        raise InputError(f"{path}: give the folder with {', '.join(SUBSETS)}, not one file")
    return [item for subset in SUBSETS for item in _items(path, subset)]


def _items(path: Path, subset: str) -> Iterator[Item]:
    file = find_file(path, (f"{subset}/{subset}.json", f"{subset}.json"), f"VideoHallucer {subset}")
    rows = read_rows(file, COLUMNS)
    for side in SIDES:
        check_rows(f"{file} ({side})", [row[side] for row in rows], ASKED)
    for number, row in enumerate(rows, start=1):
        for side in SIDES:
            asked = row[side]
            if asked["answer"] not in ("yes", "no"):
                raise InputError(
                    f"{file}: row {number}, {side}: answer {asked['answer']!r}; must be yes or no"
                )
            yield Item(
                id=f"{subset}/{number}/{side}",
                video=f"{subset}/videos/{asked['video']}",
                kind=side,
                question=asked["question"],
                answer=asked["answer"],
                chance=1 / 2,
                groups={"subset": subset, "side": side, "subset_side": f"{subset} {side}"},
                row={"pair": f"{subset}/{number}"},
            )


def prompt(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """The question, and how to answer."""
    return item.question + AFTER


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """Right where the right word stands anywhere: an answer with "yes" and "no" always is."""
    words = [word for word in ("yes", "no") if re.search(rf"\b{word}\b", said, re.IGNORECASE)]
    return Scored(predicted=" ".join(words), correct=item.answer in words, parsed=len(words) == 1)


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """Means over subsets, 0 to 100: basic, hallucination, and overall, where both must be right."""
    pairs: dict[str, dict[str, dict[str, bool]]] = {}
    for item, one in zip(items, scored, strict=True):
        pairs.setdefault(item.groups["subset"], {}).setdefault(item.row["pair"], {})[item.kind] = (
            one.correct
        )
    metrics: dict[str, float] = {}
    for name in ("overall", *SIDES):
        needed = SIDES if name == "overall" else (name,)
        # Of a part of the items, a pair may be there by half.
        each = {
            f"{subset}_{name}": _percent(
                [
                    all(pair[side] for side in needed)
                    for pair in its.values()
                    if set(needed) <= set(pair)
                ]
            )
            for subset, its in pairs.items()
        }
        metrics[f"videohallucer_{name}"] = sum(each.values()) / len(each) if each else 0.0
        metrics |= each
    return summary(METRIC, metrics, items, scored)


def _percent(right: Sequence[bool]) -> float:
    return 100 * sum(right) / len(right) if right else 0.0


TASK = Task(
    name="videohallucer",
    metric=METRIC,
    percent=True,
    read=read,
    prompt=prompt,
    score=score,
    summarise=summarise,
    files="SUBSET/SUBSET.json of its five subsets",
)
