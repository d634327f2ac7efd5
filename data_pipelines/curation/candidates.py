"""From a video to the questions asked of it: segments, captions, candidates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_pipelines.curation.config import CurateConfig
from data_pipelines.curation.given import GivenQuestions
from data_pipelines.curation.questions import Candidate, QuestionMaker, Segment, TimeQuestions
from data_pipelines.curation.responses import spread_or_empty
from data_pipelines.curation.segments import changes_of, shot_segments, uniform_segments
from data_pipelines.curation.stages import Work
from data_pipelines.curation.written import (
    AGAIN,
    DESCRIBE,
    FORM,
    comprehensive_prompt,
    draw_kinds,
    in_order,
    localized_prompt,
    read_question,
    written_candidate,
)
from data_pipelines.frames import FrameStore
from data_pipelines.sampling import inside
from data_pipelines.text_models.text_model import TextModel, TextPrompt


@dataclass(frozen=True, kw_only=True)
class TextQuestions:
    """Questions that a language model writes from captions, of drawn kinds."""

    model: TextModel
    describe: str = DESCRIBE

    @property
    def name(self) -> str:
        """Who asks, in which form."""
        return f"{FORM} by {self.model.name}"


AnyQuestions = QuestionMaker | TextQuestions | GivenQuestions


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """A video with its segments that show a frame, and their captions; "" where none is needed."""

    video_id: str
    segments: list[Segment]
    captions: list[str]


def caption_videos(
    videos: Sequence[str],
    *,
    config: CurateConfig,
    store: FrameStore,
    work: Work,
    maker: AnyQuestions,
    captioner: TextModel,
    judge_reads: bool,
) -> list[Captioned]:
    """Segments and captions of each video; a judge that `judge_reads` needs captions too."""
    if isinstance(maker, GivenQuestions):
        return [Captioned(video_id=video, segments=[], captions=[]) for video in videos]
    cut = [_shown_segments(video, config, store, work) for video in videos]
    if isinstance(maker, TimeQuestions) and not judge_reads:
        told = [[""] * len(segments) for segments, _ in cut]
    else:
        units = [
            (
                video,
                [TextPrompt(video_id=video, text=maker.describe, positions=p) for p in positions],
            )
            for video, (_, positions) in zip(videos, cut, strict=True)
        ]
        told = work.texts("captions", captioner, units)
    return [
        Captioned(video_id=video, segments=segments, captions=captions)
        for video, (segments, _), captions in zip(videos, cut, told, strict=True)
    ]


def find_candidates(
    videos: Sequence[Captioned], *, config: CurateConfig, work: Work, maker: AnyQuestions
) -> list[list[Candidate]]:
    """The candidates of each video, each with what a judge reads."""
    generators = [np.random.default_rng([config.seed, int(video.video_id, 16)]) for video in videos]
    if isinstance(maker, TextQuestions):
        return _written(videos, generators, config, work, maker)
    if isinstance(maker, GivenQuestions):
        return [
            maker.candidates(video.video_id, config.comprehensive_per_video, rng)
            for video, rng in zip(videos, generators, strict=True)
        ]
    found = []
    for video, rng in zip(videos, generators, strict=True):
        # A share of the mix that is nought is not asked for: every question costs two answers.
        candidates = []
        if config.localized_share > 0:
            candidates += maker.localized(video.captions, video.segments, rng)
        if config.localized_share < 1:
            candidates += maker.comprehensive(video.captions, config.comprehensive_per_video, rng)
        found.append([replace(one, evidence=_evidence(video, one.segment)) for one in candidates])
    return found


def _written(
    videos: Sequence[Captioned],
    generators: Sequence[np.random.Generator],
    config: CurateConfig,
    work: Work,
    maker: TextQuestions,
) -> list[list[Candidate]]:
    drawn = []
    for video, rng in zip(videos, generators, strict=True):
        some, whole = len(video.segments), config.comprehensive_per_video
        one, other = draw_kinds(config.kinds, some, whole if video.segments else 0, rng)
        asked: list[tuple[str, int | None]] = []
        if config.localized_share > 0:
            asked += [(kind, number) for number, kind in enumerate(one)]
        if config.localized_share < 1:
            asked += [(kind, None) for kind in other]
        drawn.append(asked)
    units = [
        (
            video.video_id,
            [
                TextPrompt(video_id=video.video_id, text=_writing_prompt(video, kind, number))
                for kind, number in asked
                if _noted(video, number)
            ],
        )
        for video, asked in zip(videos, drawn, strict=True)
    ]
    told = work.texts(
        "questions",
        maker.model,
        units,
        readable=lambda text: read_question(text) is not None,
        reminder=AGAIN,
    )
    found = []
    for video, asked, texts in zip(videos, drawn, told, strict=True):
        left = iter(texts)
        found.append(
            [
                written_candidate(
                    next(left) if _noted(video, number) else None,
                    granularity="comprehensive" if number is None else "localized",
                    kind=kind,
                    segment=number,
                    evidence=_evidence(video, number),
                )
                for kind, number in asked
            ]
        )
    return found


def _noted(video: Captioned, number: int | None) -> bool:
    """Whether there is a caption to write from."""
    return any(video.captions) if number is None else bool(video.captions[number])


def _writing_prompt(video: Captioned, kind: str, number: int | None) -> str:
    evidence = _evidence(video, number)
    if number is None:
        return comprehensive_prompt(kind, evidence)
    return localized_prompt(kind, evidence, video.segments[number])


def _evidence(video: Captioned, number: int | None) -> str:
    if number is None:
        return in_order(video.captions, video.segments)
    return video.captions[number]


def _shown_segments(
    video_id: str, config: CurateConfig, store: FrameStore, work: Work
) -> tuple[list[Segment], list[tuple[int, ...]]]:
    """Segments that hold a stored frame, and the frames shown of each."""
    info = store.info(video_id)

    def cut() -> list[Segment]:
        if config.segments == "uniform":
            return uniform_segments(info.duration, config.segment_seconds)
        changes_F = changes_of(store, video_id)
        return shot_segments(
            info.times_F, changes_F, info.duration, config.segment_seconds, config.shot_change
        )

    change = config.shot_change if config.segments == "shots" else None
    made_of = [video_id, config.segments, config.segment_seconds, change]
    segments = [(start, end) for start, end in work.value("segments", made_of, cut)]
    shown = [
        spread_or_empty(inside(info.times_F, start, end), config.segment_frames)
        for start, end in segments
    ]
    held = [(s, p) for s, p in zip(segments, shown, strict=True) if len(p)]
    return [s for s, _ in held], [tuple(int(n) for n in p) for _, p in held]
