"""What a task is: how its files are read, how it asks, how it judges and what it sums up to.

    task = find_task("video_mme")                       # benchmarks/tasks/registry.py
    items = task.read(Path("Video-MME"))                # the files as they are published
    protocol = find_protocol("tpo-paper", task.name, "llava_video")  # benchmarks/protocols.py
    text = task.prompt(item, protocol, facts)           # what the model reads after the frames
    scored = score_all(task, items, said, protocol)     # said: one text an item, in order
    summary = task.summarise(items, scored, protocol)   # plain data for the result file

A task knows no model and not where videos lie: `video_match.py` finds those, and the runner asks.
Which frames an item is shown is `frames_shown`. Where `task.interleaved`, the prompt holds one
`<image>` for each of them, between subtitles; elsewhere all frames stand before the text.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.protocols import Protocol, VideoFacts
from benchmarks.tasks.item import Item
from data_pipelines.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What became of an answer.

    Attributes:
      predicted: the answer as the rule understood it (a letter, "yes"); "" where it could not.
      correct: whether that is right, 0 or 1.
      parsed: False where the rule found no answer in what was said.
      counted: False where the field leaves the item out of its average.
    """

    predicted: str
    correct: bool
    parsed: bool = True
    counted: bool = True


Read = Callable[[Path], list[Item]]
Prompt = Callable[[Item, Protocol, VideoFacts], str]
Score = Callable[[Item, str, Protocol, random.Random], Scored]
Summarise = Callable[[Sequence[Item], Sequence[Scored], Protocol], dict[str, Any]]
FramesOf = Callable[[Item, Protocol, VideoFacts], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One benchmark; what it does is what its source does.

    Attributes:
      name: as `tpo eval --tasks` knows it.
      metric: the name of its headline number in the field.
      percent: the headline number is 0 to 100; otherwise 0 to 1.
      read: published file or folder -> items. InputError names file, column and row.
      prompt: -> what the model reads after the frames.
      score: -> what became of an answer. The generator is for rules that guess.
      summarise: -> {"metric", "value", "metrics": {name: value}, "groups": {axis: {name: {"items",
        "correct", "value"}}}, "unparsed"}; `value` and `metrics` are aggregated and rounded as in
        the field, groups are plain shares of the items, 0 to 1, and so is `unparsed`: the answers
        in which the rule found nothing.
      frames: -> frame numbers to show, where the task has a rule of its own.
      interleaved: the prompt says where each frame goes.
      files: which files the task reads, for messages and the documentation.
      items: how many the whole benchmark has, where that is known.
    """

    name: str
    metric: str
    percent: bool
    read: Read
    prompt: Prompt
    score: Score
    summarise: Summarise
    frames: FramesOf | None = None
    interleaved: bool = False
    files: str
    items: int | None = None


def count_warning(task: Task, items: Sequence[Item]) -> str | None:
    """What to shout where the files hold fewer or more items than the benchmark has."""
    if task.items is None or len(items) == task.items:
        return None
    return (
        f"{task.name}: {len(items)} items, the benchmark has {task.items}: the score is of another "
        "set of questions than the field's"
    )


def frames_shown(task: Task, item: Item, protocol: Protocol, video: VideoFacts) -> list[int]:
    """Numbers of the source's frames that are shown for an item, ascending; some may repeat."""
    if task.frames is not None:
        return list(task.frames(item, protocol, video))
    return protocol.frame_numbers(video).tolist()


def score_all(
    task: Task, items: Sequence[Item], said: Sequence[str], protocol: Protocol
) -> list[Scored]:
    """Judges what was said to the items, in their order.

    A rule that guesses draws from one generator as it goes, as the field's harness does, so what it
    draws does not depend on the order in which a model was asked.

    Raises:
      InputError: not one answer for each item.
    """
    if len(items) != len(said):
        raise InputError(f"{task.name}: {len(items)} items, {len(said)} answers; ask the rest")
    rng = random.Random(protocol.seed)
    return [task.score(item, text, protocol, rng) for item, text in zip(items, said, strict=True)]
