"""What the host side asks of a model: texts and frames in, text out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Request:
    """A question about some of a video's stored frames; `positions` int [F], in showing order."""

    question: str
    positions: np.ndarray


class VideoModel(Protocol):
    """Anything that answers questions about videos of a FrameStore."""

    @property
    def name(self) -> str:
        """Who answered, as recorded in artefacts: checkpoint and fingerprint."""
        ...

    def answer(self, video_id: str, requests: Sequence[Request]) -> list[str]:
        """An answer for each request, in order. Equal requests get equal answers."""
        ...
