"""MLVU dev: prompts, scores and both averages of lmms-eval.

Published as `sy1998/MLVU_dev` (test-*.parquet). Its question holds the options. Until February 2025
the harness returned the accuracy over all items, since then the mean of the seven task types; both
go by one name in papers, so both are told here.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.choices import score_letter, share_correct, summary
from benchmarks.tasks.item import Item
from benchmarks.tasks.tables import find_file, read_rows
from benchmarks.tasks.task import Scored, Task
from data_pipelines.errors import InputError

COLUMNS = dict.fromkeys(("video_name", "question", "answer", "task_type"), str)
PATTERNS = ("data/test-*.parquet", "test-*.parquet", "*/test-*.parquet")
TASK_TYPES = ("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")
LETTERS = "ABCD"
M_AVG = "mlvu_m_avg"
MICRO = "mlvu_micro"


def read(path: Path) -> list[Item]:
    """Reads the published table. Raises InputError: see `tables.py`; or an unknown task type."""
    table = find_file(path, PATTERNS, "MLVU dev")
    items = []
    for number, row in enumerate(read_rows(table, COLUMNS), start=1):
        kind = row["task_type"]
        if kind not in TASK_TYPES:
            raise InputError(
                f"{table}: row {number}: task_type {kind!r} is none of MLVU dev's "
                f"{', '.join(TASK_TYPES)}; is this the test set?"
            )
        if row["answer"] not in tuple(LETTERS):
            raise InputError(f"{table}: row {number}: answer {row['answer']!r}; must be A to D")
        items.append(
            Item(
                id=f"{kind}/{number}",
                video=row["video_name"],
                kind=kind,
                question=row["question"],
                answer=row["answer"],
                chance=1 / len(LETTERS),
                groups={"task_type": kind},
            )
        )
    return items


def prompt(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """The question, and how to answer."""
    if protocol.prompts == "2025-01":
        return f"\n{item.question}\nOnly give the best option.\n\nBest option: ("
    return f"{item.question}\nOnly give the best option.\nBest option: ("


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """Finds one of A to D by the protocol's rule."""
    return score_letter(said, item.answer, LETTERS, protocol.letters, rng)


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """Both averages, 0 to 100; the protocol says which is the headline number.

    The harness counts a task type without any item as 0; here it is left out.
    """
    by_type: dict[str, list[Scored]] = {}
    for item, one in zip(items, scored, strict=True):
        by_type.setdefault(item.groups["task_type"], []).append(one)
    each = [100 * share_correct(ones) for ones in by_type.values()]
    metrics = {
        M_AVG: sum(each) / len(each) if each else 0.0,
        MICRO: 100 * share_correct(scored),
    }
    return summary(MICRO if protocol.mlvu == "micro" else M_AVG, metrics, items, scored)


TASK = Task(
    name="mlvu",
    metric=M_AVG,
    percent=True,
    read=read,
    prompt=prompt,
    score=score,
    summarise=summarise,
    files="test-*.parquet",
    items=2174,
)
