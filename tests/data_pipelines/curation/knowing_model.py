"""A model whose every answer is known, and a run of curation with it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.answering import Answer, Request
from data_pipelines.curation.config import CurateConfig
from data_pipelines.curation.judge import RuleJudge
from data_pipelines.curation.pipeline import Curator, Progress, curate
from data_pipelines.curation.questions import RuleQuestions
from data_pipelines.frames import FrameStore
from data_pipelines.synthetic import Shown
from data_pipelines.synthetic_events import DESCRIBE, caption
from tests.data_pipelines.grammar_by_hand import needed, right_answer

# Segments so short that the same is often asked twice about one event.
CONFIG = CurateConfig(pairs=100, comprehensive_per_video=6, segment_seconds=3.0, segment_frames=4)
SAMPLING = {"temperature": 0.0}
MADE_FROM = {"frames": "f1", "curate": {"segment_frames": 8, "seed": 0}}
UNKNOWN = "I do not know."
Timelines = dict[str, list[Shown]]  # by video id


class Killed(Exception):
    """Stands for whatever ends a run in the middle."""


@dataclass(kw_only=True)
class KnowingModel:
    """Knows the videos by heart, but tells only what is in the frames it is shown.

    `captions` are said instead for single segments; `tamper` has the last word on an answer. The
    `calls`-th call (from 1) of `killed_at` never returns.
    """

    store: FrameStore
    timelines: Timelines
    captions: dict[tuple[str, int], str] = field(default_factory=dict)
    tamper: Callable[[str, str], str] = lambda question, answer: answer
    killed_at: int = 0
    calls: list[tuple[str, list[Request]]] = field(default_factory=list)
    name: str = "knowing@1"

    def answer(self, video_id: str, requests: Sequence[Request]) -> list[Answer]:
        self.calls.append((video_id, list(requests)))
        if len(self.calls) == self.killed_at:
            raise Killed
        said = [self._answer(video_id, number, r) for number, r in enumerate(requests)]
        return [Answer(text=text, tokens=1, logprob=0.0, finished=True) for text in said]

    def _answer(self, video_id: str, number: int, request: Request) -> str:
        timeline = self.timelines[video_id]
        seen = shown_in(self.store, video_id, request.positions, timeline)
        if request.question == DESCRIBE:
            told = caption([shown.event for shown in timeline if shown in seen])
            return self.captions.get((video_id, number), told)
        asked, answer = answer_to(request.question, timeline)
        told = answer if all(shown in seen for shown in asked) else UNKNOWN
        return self.tamper(request.question, told)


def shown_in(
    store: FrameStore, video_id: str, positions: Sequence[int] | np.ndarray, timeline: list[Shown]
) -> list[Shown]:
    """What is on screen in at least one of these frames."""
    times = store.info(video_id).times_F[np.asarray(positions, int)]
    return [shown for shown in timeline if any(shown.start <= time < shown.end for time in times)]


def answer_to(question: str, timeline: list[Shown]) -> tuple[list[Shown], str]:
    """What one must have seen of a video, and the answer."""
    events = [shown.event for shown in timeline]
    asked = needed(question, events)
    return [shown for shown in timeline if shown.event in asked], right_answer(question, events)


class World(NamedTuple):
    """Three videos in a store, and what is in them."""

    store: FrameStore
    timelines: Timelines


def silent(done: int, total: int, detail: str) -> None:
    """No progress."""


def run(
    world: World,
    out: Path,
    model: KnowingModel | None = None,
    config: CurateConfig = CONFIG,
    made_from: dict[str, Any] = MADE_FROM,
    progress: Progress = silent,
) -> KnowingModel:
    model = model or knowing(world)
    curate(curator_of(world, model, config), out, made_from, progress)
    return model


def curator_of(world: World, model: KnowingModel, config: CurateConfig = CONFIG) -> Curator:
    return Curator(
        config=config,
        store=world.store,
        model=model,
        maker=RuleQuestions(),
        judge=RuleJudge(),
        sampling=SAMPLING,
    )


def knowing(world: World, **changes: Any) -> KnowingModel:
    return KnowingModel(store=world.store, timelines=world.timelines, **changes)


def read_dropped(out: Path) -> list[dict[str, Any]]:
    lines = (out / "dropped.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}
