"""What every task is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Granularity = Literal["localized", "comprehensive"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question to a model about one video.

    Attributes:
      id: unique within the task, and the same whenever the task is made again.
      video: the video's file name, or its path within the folder that holds all of the task's.
      granularity: "localized" asks about one segment, "comprehensive" about the whole video.
      kind: what is asked for; accuracy is also told by kind.
      question: as the task holds it. What a model reads is made of it by the task's `prompt`.
      answer: the right answer: a letter where there are options.
      chance: how often a guess among the possible answers is right; None where answers are free.
      segment: seconds (start, end) that hold all the question asks about; None where nobody knows,
        or it is the whole video.
      options: the possible answers as the task holds them, in order; () where answers are free, or
        where the question lists them itself.
      groups: what scores are also told by: "duration" -> "short", "task_type" -> "order".
      subtitles: the file with the video's subtitles; None where the task has none for it.
      row: columns of the published row that nothing above holds and the task's rules need.
    """

    id: str
    video: str
    granularity: Granularity = "comprehensive"
    kind: str = ""
    question: str
    answer: str
    chance: float | None = None
    segment: tuple[float, float] | None = None
    options: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    subtitles: Path | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
