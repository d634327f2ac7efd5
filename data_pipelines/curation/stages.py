"""The work of curation on disk: a ledger a stage, keyed by all that a unit depends on.

A unit is what one video needs of one stage. Its key is made of the prompts themselves and of who
is asked, not of the config: killed anywhere, a run goes on with the next unit, and a run with
another judge finds captions, questions and answers done.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data_pipelines.answering import Answer, Request, VideoModel
from data_pipelines.artefacts import fingerprint
from data_pipelines.curation.ledger import Ledger
from data_pipelines.text_models.text_model import TextModel, TextPrompt

STAGES = ("segments", "captions", "questions", "answers", "verdicts")


class Work:
    """What was done, by stage."""

    def __init__(self, folder: Path, frames: str, host: str = ""):
        """Args: the folder of the ledgers, made if absent; the frame store's fingerprint; which of
        several hosts adds to them, each to files of its own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._frames = frames
        self._ledgers = {
            stage: Ledger(folder / f"{stage}{host}.jsonl", sorted(folder.glob(f"{stage}*.jsonl")))
            for stage in STAGES
        }

    def value(self, stage: str, depends_on: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once for all that is equal to `depends_on`."""
        ledger = self._ledgers[stage]
        key = fingerprint({"frames": self._frames, "unit": depends_on})
        if key not in ledger:
            ledger.add(key, make())
        return ledger[key]

    def texts(
        self,
        stage: str,
        model: TextModel,
        units: Sequence[tuple[str, list[TextPrompt]]],
        *,
        readable: Callable[[str], bool] = lambda text: True,
        reminder: str = "",
    ) -> list[list[str]]:
        """The texts of each unit (video id, prompts), asked for where they are not there yet.

        A text that is not readable is asked for once more, with the reminder.
        """
        ledger = self._ledgers[stage]
        keys = [
            fingerprint(
                {
                    "frames": self._frames,
                    "by": model.identity,
                    "video": video,
                    "prompts": [prompt.to_json() for prompt in prompts],
                    "reminder": reminder,
                }
            )
            for video, prompts in units
        ]
        left = [at for at, key in enumerate(keys) if key not in ledger]
        for first in range(0, len(left), model.videos_at_once):
            batch = left[first : first + model.videos_at_once]
            prompts = [prompt for at in batch for prompt in units[at][1]]
            texts = _two_tries(model, prompts, readable, reminder)
            for at in batch:
                count = len(units[at][1])
                ledger.add(keys[at], texts[:count])
                texts = texts[count:]
        return [ledger[key] for key in keys]

    def answers(
        self, model: VideoModel, identity: str, video_id: str, requests: Sequence[Request]
    ) -> list[Answer]:
        """The answers to a video's requests, asked for in one call where they are not there yet."""
        if not requests:
            return []
        depends_on = {
            "by": identity,
            "video": video_id,
            "requests": [
                asdict(request) | {"positions": [int(p) for p in request.positions]}
                for request in requests
            ],
        }
        told = self.value(
            "answers",
            depends_on,
            lambda: [asdict(answer) for answer in model.answer(video_id, requests)],
        )
        return [Answer(**one) for one in told]


def _two_tries(
    model: TextModel,
    prompts: list[TextPrompt],
    readable: Callable[[str], bool],
    reminder: str,
) -> list[str]:
    if not prompts:
        return []
    texts = model.complete(prompts)
    again = [at for at, text in enumerate(texts) if not readable(text)]
    if again:
        second = [replace(prompts[at], text=prompts[at].text + reminder, sample=1) for at in again]
        for at, text in zip(again, model.complete(second), strict=True):
            texts[at] = text
    return texts
