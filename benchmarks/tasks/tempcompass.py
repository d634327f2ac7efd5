"""TempCompass by rule: multi-choice, yes/no and caption matching.

Published as `lmms-eval/TempCompass`: multi-choice/, yes_no/ and caption_matching/test-*.parquet,
and videos/. Prompts and rules are those of lmms-eval 0.7.3, which asks a language model where the
rules find no answer. Here such an answer counts as wrong and its share is told as `unmatched`: the
score is a lower bound of the field's. The fourth part, captioning, is left out: a language model
judges all of it.
"""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.choices import share_correct, summary
from benchmarks.tasks.item import Item
from benchmarks.tasks.tables import find_file, read_rows
from benchmarks.tasks.task import Scored, Task
from data_pipelines.errors import InputError

COLUMNS = dict.fromkeys(("video_id", "question", "answer", "dim"), str)
BEST_OPTION = "\nPlease directly give the best option:"
# What follows the question, by part.
AFTER = {
    "multi-choice": BEST_OPTION,
    "yes_no": "\nPlease answer yes or no:",
    "caption_matching": BEST_OPTION,
}
METRIC = "tempcompass_rule"
_LETTER = re.compile(r"[ABCD](?:\Z|[.)])")
_NAME = re.compile("Sentence |Option |Caption ")


def read(path: Path) -> list[Item]:
    """Reads the three tables. Raises InputError: see `tables.py`; or captions cannot be told."""
    if path.is_file():
        raise InputError(f"{path}: give the folder with {', '.join(AFTER)}, not one file")
    return [item for part in AFTER for item in _items(path, part)]


def _items(path: Path, part: str) -> Iterator[Item]:
    table = find_file(path, (f"{part}/test-*.parquet", f"{part}/*.parquet"), f"TempCompass {part}")
    for number, row in enumerate(read_rows(table, COLUMNS), start=1):
        if part == "caption_matching":
            captions = row["question"].split("\n")[1:]
            if not captions or ": " not in row["answer"] or any(": " not in c for c in captions):
                raise InputError(
                    f"{table}: row {number}: every line after the question's first, and the "
                    "answer, must be as 'Caption A: text'"
                )
        yield Item(
            id=f"{part}/{number}",
            video=f"videos/{row['video_id']}.mp4",
            kind=part,
            question=row["question"],
            answer=row["answer"],
            chance=_chance(part, row["question"]),
            groups={"part": part, "dim": row["dim"], "part_dim": f"{part} {row['dim']}"},
        )


def _chance(part: str, question: str) -> float:
    return 1 / 2 if part == "yes_no" else 1 / max(len(question.split("\n")) - 1, 1)


def prompt(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """The question, and how to answer."""
    return item.question + AFTER[item.kind]


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """By the rule of the item's part, whatever the protocol says."""
    if item.kind == "yes_no":
        told = next((word for word in ("yes", "no") if said.lower().startswith(word)), "")
        return Scored(predicted=told, correct=told == item.answer, parsed=bool(told))
    if item.kind == "multi-choice":
        return _score_option(item.answer, said)
    return _score_caption(item, said)


def _score_option(answer: str, said: str) -> Scored:
    if said == answer:
        return Scored(predicted=answer[:1], correct=True)
    # A letter alone, or one with "." or ")" behind it and anything after that.
    letter = said[0] if _LETTER.match(said) else ""
    return Scored(
        predicted=letter, correct=letter != "" and letter == answer[0], parsed=bool(letter)
    )


def _score_caption(item: Item, said: str) -> Scored:
    """A caption is named whole, by its text, by its name ("Caption A") or by its letter."""
    captions = item.question.split("\n")[1:]
    names, texts = zip(*(caption.split(": ")[:2] for caption in captions), strict=True)
    short = [_NAME.sub("", name) for name in names]
    behind = said.split(") ")[1] if ") " in said else said
    without_stops = said.replace(".", "")
    told = ""
    if said in captions:
        told = said
    # Later forms win, as in the harness.
    told = next((text for text in reversed(texts) if text in (said, behind)), told)
    told = next((n for n in reversed((*names, *short)) if n in (said, without_stops)), told)
    name, text = item.answer.split(": ")[:2]
    right = (item.answer, item.answer.split(":")[0], text, *name.split()[1:2])
    return Scored(predicted=told, correct=told != "" and told in right, parsed=bool(told))


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """The mean of the parts' accuracies, each part's, and how many no rule understood; 0 to 100."""
    metrics = {}
    for part in AFTER:
        ones = [one for item, one in zip(items, scored, strict=True) if item.kind == part]
        if ones:
            metrics[f"tempcompass_{part}"] = 100 * share_correct(ones)
    mean = sum(metrics.values()) / len(metrics) if metrics else 0.0
    unmatched = 100 * sum(not one.parsed for one in scored) / max(len(scored), 1)
    return summary(METRIC, {METRIC: mean} | metrics | {"unmatched": unmatched}, items, scored)


TASK = Task(
    name="tempcompass",
    metric=METRIC,
    percent=True,
    read=read,
    prompt=prompt,
    score=score,
    summarise=summarise,
    files="multi-choice/, yes_no/ and caption_matching/test-*.parquet",
)
