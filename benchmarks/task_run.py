"""Asks a model the items of a task, a video at a time, and keeps what it says as it comes.

Several processes may share the work: each asks the videos of its part and writes a file of its own
(`answers.1-of-4.jsonl`); whoever comes after reads them all. Scoring is done when every item has
its answer, since rules that guess draw in the order of the items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.record_file import append_lines, cut_torn_line, damaged, read_lines
from benchmarks.tasks.item import Item
from data_pipelines.answering import Request, VideoModel
from data_pipelines.artefacts import fingerprint

ANSWERS_GLOB = "answers.*.jsonl"


@dataclass(frozen=True, kw_only=True)
class Question:
    """An item made ready for a model.

    Attributes:
      item: what is asked.
      video: id of its video in the frame store.
      text: what the model reads after (or around) the frames.
      positions: stored frames that are shown, int [F].
      interleaved: the text says where each frame goes (`Request`).
    """

    item: Item
    video: str
    text: str
    positions: np.ndarray
    interleaved: bool = False

    @property
    def asked(self) -> str:
        """16 hex digits over all that the model is shown, and the item's id."""
        return fingerprint(
            {
                "item": self.item.id,
                "video": self.video,
                "text": self.text,
                "positions": [int(position) for position in self.positions],
            }
        )


@dataclass(frozen=True, kw_only=True)
class Said:
    """One line of an answers file.

    Attributes:
      item: the item's id.
      said: the answer, as it came.
      tokens: how many, the end token included.
      finished: it ended by itself, before its room did.
      asked: `Question.asked`; an answer to anything else is not taken for this one.
    """

    item: str
    said: str
    tokens: int
    finished: bool
    asked: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which of the videos a process asks: those whose number leaves `index`, divided by `of`."""

    index: int = 0
    of: int = 1

    @property
    def file(self) -> str:
        """Name of its answers file."""
        return f"answers.{self.index + 1}-of-{self.of}.jsonl"


# Told (videos done, of so many, the last file, the answers so far).
Progress = Callable[[int, int, str, Sequence[Said]], None]


def ask_questions(
    questions: Sequence[Question],
    model: VideoModel,
    folder: Path,
    part: Part | None = None,
    progress: Progress | None = None,
) -> None:
    """Asks all questions of a part that no file in the folder holds the answer to.

    All questions about a video go to the model in one call, and their answers are on disk before
    the next video begins. A run that was killed goes on where it was, also with other parts.

    Args:
      questions: of the whole task, whatever the part.
      model: whom to ask.
      folder: of the answers files; other settings need another folder.
      part: which videos to ask; None for all.
      progress: called after each video of the part.

    Raises:
      InputError: an answers file is damaged elsewhere than in its last line.
    """
    part = part or Part()
    record = folder / part.file
    cut_torn_line(record)
    known = read_answers(folder)
    by_video: dict[str, list[Question]] = {}
    for question in questions:
        by_video.setdefault(question.video, []).append(question)
    mine = list(by_video.values())[part.index :: part.of]
    so_far: list[Said] = []
    for done, asked in enumerate(mine, start=1):
        missing = [question for question in asked if question.asked not in known]
        if missing:
            requests = [
                Request(question=one.text, positions=one.positions, interleaved=one.interleaved)
                for one in missing
            ]
            answers = model.answer(missing[0].video, requests)
            new = [
                Said(
                    item=question.item.id,
                    said=answer.text,
                    tokens=answer.tokens,
                    finished=answer.finished,
                    asked=question.asked,
                )
                for question, answer in zip(missing, answers, strict=True)
            ]
            append_lines(record, map(vars, new))
            known |= {one.asked: one for one in new}
        so_far += [known[question.asked] for question in asked]
        if progress:
            progress(done, len(mine), asked[0].item.video, so_far)


def read_answers(folder: Path) -> dict[str, Said]:
    """What the answers files in a folder hold, by `asked`."""
    known = {}
    for path in sorted(folder.glob(ANSWERS_GLOB)):
        for number, line in enumerate(read_lines(path), start=1):
            try:
                one = Said(**line)
            except TypeError as error:
                raise damaged(path, number) from error
            known[one.asked] = one
    return known
