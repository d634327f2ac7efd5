"""What every task is made of."""

from dataclasses import dataclass
from typing import Literal

Granularity = Literal["localized", "comprehensive"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question to a model about one video.

    Attributes:
      id: unique within the task, and the same whenever the task is made again.
      video: the video's file name.
      granularity: "localized" asks about one segment, "comprehensive" about the whole video.
      kind: what is asked for; accuracy is also told by kind.
      question: as the model reads it.
      answer: the right answer.
      chance: how often a guess among the possible answers is right; None where answers are free.
      segment: seconds (start, end) that hold all the question asks about; None where nobody knows,
        or it is the whole video.
      traits: names of what else is true of it; accuracy can be told by trait.
    """

    id: str
    video: str
    granularity: Granularity
    kind: str
    question: str
    answer: str
    chance: float | None = None
    segment: tuple[float, float] | None = None
    traits: tuple[str, ...] = ()
