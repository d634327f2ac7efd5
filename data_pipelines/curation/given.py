"""Questions that people already have, with their answers: LLaVA-Video-178K's form and a plain one.

A line (JSON lines) or an item (one JSON list) is either of

    {"video": "a/b.mp4", "question": "...", "answer": "..."}
    {"video": "a/b.mp4", "conversations": [{"from": "human", "value": "<image>\\n..."},
                                           {"from": "gpt", "value": "..."}, ...]}

A conversation gives a question for each of its turns. Other keys are left alone.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.curation.questions import Candidate
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.json_text import parse_json
from data_pipelines.text_models.text_model import without_marks

GIVEN = "given"
FORM = '{"video": "name.mp4", "question": "...", "answer": "..."}, or with "conversations"'


@dataclass(frozen=True, kw_only=True)
class GivenQuestions:
    """Questions and answers by video id; `elsewhere` counts those about videos not in the store."""

    name: str
    by_video: dict[str, list[tuple[str, str]]]
    elsewhere: int = 0
    describe: str = field(default="", init=False)

    def candidates(self, video_id: str, count: int, rng: np.random.Generator) -> list[Candidate]:
        """At most `count` of a video's questions, drawn, in their own order."""
        known = self.by_video.get(video_id, [])
        if len(known) > count:
            drawn = np.sort(rng.choice(len(known), size=count, replace=False))
            known = [known[int(number)] for number in drawn]
        return [
            Candidate(
                granularity="comprehensive",
                kind=GIVEN,
                question=question,
                segment=None,
                expected=answer,
                evidence=answer,
                given=True,
            )
            for question, answer in known
        ]


def read_given(path: Path, store: FrameStore) -> GivenQuestions:
    """Read a file of questions about videos, those of the store alone.

    Raises:
      InputError: no file, not JSON, an item without video, question and answer, or none about a
        video of the store.
    """
    names = {name: video for video in store.videos for name in store.info(video).names}
    by_video: dict[str, list[tuple[str, str]]] = {}
    elsewhere = 0
    for where, item in _items(path):
        if not isinstance(item, dict) or not isinstance(item.get("video"), str):
            raise InputError(f"{where}: names no video; an item is {FORM}")
        turns = _turns(item, where)
        video = _find(item["video"], names)
        if video is None:
            elsewhere += len(turns)
            continue
        by_video.setdefault(video, []).extend(turns)
    if not by_video:
        raise InputError(
            f"{path}: none of its {elsewhere} questions is about a video of {store.path}; names "
            f"there are like {min(names, default='(none)')!r}"
        )
    return GivenQuestions(name=f"file {path.name}", by_video=by_video, elsewhere=elsewhere)


def _items(path: Path) -> list[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a UTF-8 file") from error
    if text.lstrip().startswith("["):
        try:
            return [(f"{path}: item {n}", item) for n, item in enumerate(parse_json(text), 1)]
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error})") from error
    items = []
    # Not splitlines: a text may hold U+2028 and its like, which JSON leaves as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                items.append((f"{path}:{number}", parse_json(line)))
            except ValueError as error:
                raise InputError(f"{path}:{number}: not JSON ({error})") from error
    return items


def _turns(item: dict[str, Any], where: str) -> list[tuple[str, str]]:
    """Questions with their answers."""
    said = item.get("conversations")
    if said is None:
        turns = [(item.get("question"), item.get("answer"))]
    elif isinstance(said, list) and all(isinstance(turn, dict) for turn in said):
        values = [turn.get("value") for turn in said if turn.get("from") != "system"]
        if len(values) % 2:
            raise InputError(f"{where}: a question of its conversations has no answer")
        turns = list(zip(values[::2], values[1::2], strict=True))
    else:
        raise InputError(f"{where}: its conversations are no list of turns; an item is {FORM}")
    read = []
    for question, answer in turns:
        if not isinstance(question, str) or not isinstance(answer, str):
            raise InputError(f"{where}: has no question and answer as texts; an item is {FORM}")
        # The video's place is the prompt's matter.
        asked, told = without_marks(question).strip(), answer.strip()
        if not asked or not told:
            raise InputError(f"{where}: a question or an answer is empty; leave it out")
        read.append((asked, told))
    return read


def _find(name: str, names: dict[str, str]) -> str | None:
    """The id of the video whose name is the end of this path."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    ends = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((names[end] for end in ends if end in names), None)
