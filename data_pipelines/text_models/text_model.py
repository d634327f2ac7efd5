"""What curation asks of whoever captions, asks and judges: prompts in, texts out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from data_pipelines.answering import Request, VideoModel
from data_pipelines.prompts import VIDEO_MARK
from data_pipelines.tokenizer import SPECIAL_TOKENS


@dataclass(frozen=True, kw_only=True)
class TextPrompt:
    """A text, and stored frames of a video where the model is to see some.

    `sample` tells a second try from the first: every number is answered for itself.
    """

    video_id: str
    text: str
    positions: tuple[int, ...] = ()
    sample: int = 0

    def to_json(self) -> list[Any]:
        """All that an answer depends on, but for the model."""
        return [self.video_id if self.positions else "", self.text, self.positions, self.sample]


class TextModel(Protocol):
    """Prompts in, texts out.

    Attributes:
      name: who it is, as recorded in pairs.
      identity: all that its texts depend on, as text; ledgers are keyed by it.
      videos_at_once: of how many videos `complete` is best given the prompts.
    """

    name: str
    identity: str
    videos_at_once: int

    def complete(self, prompts: Sequence[TextPrompt]) -> list[str]:
        """A text for each prompt, in order."""
        ...


class PolicyText:
    """The model that is trained, asked for texts like any other.

    One video at a time: its prompts then form the same batches however often a run was cut off.
    """

    videos_at_once = 1

    def __init__(self, model: VideoModel, identity: str):
        self._model = model
        self.name = model.name
        self.identity = identity

    def complete(self, prompts: Sequence[TextPrompt]) -> list[str]:
        """A text for each prompt, in order."""
        texts: list[str] = []
        for video_id, group in groupby(prompts, key=lambda prompt: prompt.video_id):
            requests = [
                Request(
                    question=without_marks(prompt.text),
                    positions=np.array(prompt.positions, np.int64),
                    sample=prompt.sample,
                )
                for prompt in group
            ]
            texts += [answer.text for answer in self._model.answer(video_id, requests)]
        return texts


def without_marks(text: str) -> str:
    """A text without what the template means something by; a model may well have said it."""
    for mark in (*SPECIAL_TOKENS, VIDEO_MARK):
        text = text.replace(mark, " ")
    return text
