"""What the host side asks of a model: texts and frames in, text out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Request:
    """A question about some of a video's stored frames.

    Attributes:
      question: the text.
      positions: stored frames that are shown, int [F], in showing order; none for text alone.
      temperature: of this answer; None for the model's own.
      sample: which answer to an equal question this is. Every number draws for itself.
      interleaved: the question says with `<image>` where each frame goes; they come in order.
        Otherwise all stand before it.
    """

    question: str
    positions: np.ndarray
    temperature: float | None = None
    sample: int = 0
    interleaved: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said.

    Attributes:
      text: without the end token.
      tokens: how many were said, the end token included.
      logprob: their summed log-probability under the model, whatever the temperature.
      finished: the model ended by itself, before its room for tokens did.
    """

    text: str
    tokens: int
    logprob: float
    finished: bool


class VideoModel(Protocol):
    """Anything that answers questions about videos of a FrameStore."""

    @property
    def name(self) -> str:
        """Who answered, as recorded in artefacts: checkpoint and fingerprint."""
        ...

    def answer(self, video_id: str, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request, in order. Equal requests get equal answers."""
        ...
