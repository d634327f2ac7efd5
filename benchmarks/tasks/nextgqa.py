"""NExT-GQA: is the answer right, and does the model know where in the video it is shown?

Published in doc-doc/NExT-GQA, datasets/nextgqa: test.csv and gsub_test.json; the videos are those
of NExT-QA. Every question is put twice: once for a letter, in the words of lmms-eval's NExT-QA, and
once for the seconds. The benchmark says nothing of how a model that talks is asked for them, and
what TPO's authors asked is not known: these words are ours. Scores are those of the benchmark's
eval_ground.py, but for one thing: it leaves out questions without a prediction, which raises the
score of a model that seldom tells a span. Here they count as 0, and its numbers are beside them.
"""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.choices import letters, rule_for, score_letter, share_correct, summary
from benchmarks.tasks.item import Item
from benchmarks.tasks.spans import Span, overlap, overlap_summary
from benchmarks.tasks.tables import Row, find_file, read_json, read_rows
from benchmarks.tasks.task import Scored, Task
from data_pipelines.errors import InputError

OPTIONS = tuple(f"a{number}" for number in range(5))
COLUMNS = dict.fromkeys(("video_id", "question", "answer", "qid", "type", *OPTIONS), str)
AFTER_GROUND = (
    "\nWhen in the video is that shown? Answer with its start and end in seconds only, as in "
    "'12.0 - 15.5'."
)
METRIC = "acc_gqa"
ENOUGH = 0.5  # IoP at which a span counts as found
_CLOCK = re.compile(r"\b(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def read(path: Path) -> list[Item]:
    """Reads questions and spans; those without a span are left out, as the benchmark does.

    Raises:
      InputError: see `tables.py`; or a span or an answer is wrong.
    """
    table = find_file(path, ("test.csv", "nextgqa/test.csv"), "NExT-GQA")
    file = table.with_name(f"gsub_{table.stem}.json")
    located = read_json(file)
    if not isinstance(located, dict):
        raise InputError(f"{file}: must be an object of videos; fetch it again")
    items: list[Item] = []
    for number, row in enumerate(read_rows(table, COLUMNS), start=1):
        gold = _gold(file, located, row)
        options = tuple(row[name].strip() for name in OPTIONS)
        if row["answer"].strip() not in options:
            raise InputError(f"{table}: row {number}: the answer is none of {', '.join(OPTIONS)}")
        if not gold:
            continue
        for kind in ("answer", "ground"):
            items.append(
                Item(
                    id=f"{row['video_id']}_{row['qid']}/{kind}",
                    video=f"{row['video_id']}.mp4",
                    granularity="localized",
                    kind=kind,
                    question=row["question"].strip(),
                    answer=letters(5)[options.index(row["answer"].strip())],
                    chance=1 / len(options) if kind == "answer" else None,
                    segment=(min(s for s, _ in gold), max(e for _, e in gold)),
                    options=options if kind == "answer" else (),
                    groups={"asked": kind, "type": f"{row['type']} {kind}"},
                    row={"question": f"{row['video_id']}_{row['qid']}", "gold": gold},
                )
            )
    return items


def _gold(file: Path, located: Mapping[str, Any], row: Row) -> list[Span]:
    try:
        spans = located.get(row["video_id"], {"location": {}})["location"].get(row["qid"], [])
        return [(float(start), float(end)) for start, end in spans]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: {row['video_id']}: must have location, question -> [[start, end], ...]"
        ) from error


def prompt(item: Item, protocol: Protocol, video: VideoFacts) -> str:
    """The question with options and no other word, or with the one for the seconds."""
    if item.kind == "ground":
        return item.question + AFTER_GROUND
    among = zip(letters(5), item.options, strict=True)
    return "\n".join([item.question, *(f"{letter}. {option}" for letter, option in among)])


def score(item: Item, said: str, protocol: Protocol, rng: random.Random) -> Scored:
    """A letter by the protocol's rule; a span by its overlap, right from half of it inside."""
    if item.kind == "answer":
        rule = rule_for(protocol.letters, letters(5))
        return score_letter(said, item.answer, letters(5), rule, rng)
    span = find_span(said)
    if span is None:
        return Scored(predicted="", correct=False, parsed=False)
    _, inside = overlap(item.row["gold"], span)
    return Scored(predicted=f"{span[0]} {span[1]}", correct=inside >= ENOUGH)


def find_span(said: str) -> Span | None:
    """The first two times in a text, in seconds, the earlier first; None where there are no two.

    Times are "12", "12.5" or "1:02"; where two have a colon, numbers without one do not count.
    """
    clock = [
        int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
        for hours, minutes, seconds in _CLOCK.findall(said)
    ]
    times = clock if len(clock) >= 2 else [float(number) for number in _NUMBER.findall(said)]
    if len(times) < 2:
        return None
    return min(times[:2]), max(times[:2])


def summarise(
    items: Sequence[Item], scored: Sequence[Scored], protocol: Protocol
) -> dict[str, Any]:
    """Acc@GQA, Acc@QA, mIoP, IoP@0.3, IoP@0.5, mIoU, IoU@0.3 and IoU@0.5, 0 to 100.

    `..._told` are those of the questions for which a span was told, as eval_ground.py has them.
    """
    right: dict[str, bool] = {}
    spans: dict[str, Span] = {}
    gold: dict[str, list[Span]] = {}
    for item, one in zip(items, scored, strict=True):
        if item.kind == "answer":
            right[item.row["question"]] = one.correct
            continue
        gold[item.row["question"]] = item.row["gold"]
        if one.parsed:
            start, end = one.predicted.split()
            spans[item.row["question"]] = (float(start), float(end))
    answered = [one for item, one in zip(items, scored, strict=True) if item.kind == "answer"]
    metrics = overlap_summary(gold, spans, right, missing_is_zero=True)
    told = overlap_summary(gold, spans, right, missing_is_zero=False)
    metrics |= {"acc_qa": 100 * share_correct(answered)}
    return summary(
        METRIC, metrics | {f"{name}_told": value for name, value in told.items()}, items, scored
    )


TASK = Task(
    name="nextgqa",
    metric=METRIC,
    percent=True,
    read=read,
    prompt=prompt,
    score=score,
    summarise=summarise,
    files="test.csv, gsub_test.json",
    items=2 * 5553,
)
