"""What curation asks of a language model: texts in, texts out."""

from collections.abc import Sequence
from typing import Protocol


class TextModel(Protocol):
    """Anything that answers prompts."""

    @property
    def name(self) -> str:
        """Who answered, as recorded in artefacts; without secrets."""
        ...

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """An answer to each prompt, in order. Equal prompts get equal answers."""
        ...
