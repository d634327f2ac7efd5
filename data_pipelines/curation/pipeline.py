"""Curation of a FrameStore into a folder of pairs, one video at a time.

Captions of segments, then questions from the captions, then both answers, then the filters. A
video is one unit of work in the ledger: killed anywhere, a run goes on with the next video, and
the same pairs come out. What is dropped is kept in `dropped.jsonl` with its reason.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines.answering import Request, VideoModel
from data_pipelines.artefacts import (
    building,
    check_unfinished,
    fingerprint,
    write_manifest,
    write_text,
)
from data_pipelines.curation.filters import reason_to_drop
from data_pipelines.curation.judge import Judge, Judged
from data_pipelines.curation.ledger import Ledger
from data_pipelines.curation.questions import Candidate, QuestionMaker
from data_pipelines.curation.responses import Sides, incomplete, irrelevant, spread_or_empty
from data_pipelines.curation.segments import uniform_segments
from data_pipelines.curation.text_rules import TextRules
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import Pair, write_pairs
from data_pipelines.sampling import inside
from data_pipelines.text_models.endpoint import EndpointConfig

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """How pairs are made.

    `questions` names the maker: "rules" reads the captions of synthetic videos and has a judge of
    the same kind; "time" asks of any video what is shown when, and nobody judges; "written" has the
    language model behind `endpoint` write questions from captions, and judge. `segment_seconds`
    a segment, `segment_frames` shown of one, `dense_frames` and `sparse_frames`
    of a whole video, `comprehensive_per_video` questions, `pairs` wanted at most and
    `localized_share` of them localized. Without `post_filter` the judge's verdict drops nothing,
    nor does an ambiguous question; what `texts` says of the two answers counts all the same. Of
    pairs with the same question about the same video the first is kept.
    """

    questions: Literal["rules", "time", "written"] = "rules"
    segment_seconds: float = 8.0
    segment_frames: int = 8
    dense_frames: int = 32
    sparse_frames: int = 4
    comprehensive_per_video: int = 4
    pairs: int = 10_000
    localized_share: float = 0.5
    post_filter: bool = True
    texts: TextRules = TextRules()
    endpoint: EndpointConfig = EndpointConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("segment_frames", "dense_frames", "sparse_frames", "pairs")
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"curate.{name} is {getattr(self, name)}; must be 1 or more")
        if not 0 < self.segment_seconds < math.inf:
            raise InputError(f"curate.segment_seconds is {self.segment_seconds}; must be positive")
        if not 0 <= self.localized_share <= 1:
            raise InputError(f"curate.localized_share is {self.localized_share}; must be 0 to 1")
        if self.sparse_frames >= self.dense_frames:
            raise InputError(
                f"curate.sparse_frames is {self.sparse_frames}; must be fewer than "
                f"curate.dense_frames, {self.dense_frames}, or both answers are the same"
            )


@dataclass(frozen=True, kw_only=True)
class Curator:
    """Everything a video is curated with."""

    config: CurateConfig
    store: FrameStore
    model: VideoModel
    maker: QuestionMaker
    judge: Judge
    sampling: dict[str, Any]

    def curate_video(self, video_id: str) -> dict[str, list[dict[str, Any]]]:
        """{"captions": [...], "kept": [pair, ...], "dropped": [pair, filter and reason, ...]}."""
        config = self.config
        info = self.store.info(video_id)
        rng = np.random.default_rng([config.seed, int(video_id, 16)])
        segments = uniform_segments(info.duration, config.segment_seconds)
        shown = [
            spread_or_empty(inside(info.times_F, start, end), config.segment_frames)
            for start, end in segments
        ]
        segments = [s for s, positions in zip(segments, shown, strict=True) if len(positions)]
        shown = [positions for positions in shown if len(positions)]
        described = self.model.answer(
            video_id, [Request(question=self.maker.describe, positions=p) for p in shown]
        )
        captions = [answer.text for answer in described]
        candidates = self.maker.localized(captions, segments, rng)
        candidates += self.maker.comprehensive(captions, config.comprehensive_per_video, rng)
        outcome: dict[str, list] = {"captions": captions, "kept": [], "dropped": []}
        asked_first: dict[str, str] = {}  # of the questions kept, the pair
        asked = []
        for candidate in candidates:
            sides = self._sides(candidate, info.times_F, segments)
            pair = self._pair(video_id, candidate, segments)
            if candidate.drop is not None:
                outcome["dropped"].append(_dropped(pair, *candidate.drop))
            elif candidate.ambiguous and config.post_filter:
                outcome["dropped"].append(_dropped(pair, "ambiguous", candidate.ambiguous))
            elif sides is None:
                why = "the video has no frame away from the segment"
                outcome["dropped"].append(_dropped(pair, "no_other_frames", why))
            else:
                asked.append((candidate, sides))
        if not asked:
            return outcome
        answers = self.model.answer(
            video_id,
            [
                Request(question=candidate.question, positions=positions)
                for candidate, sides in asked
                for positions in (sides.chosen, sides.rejected)
            ],
        )
        said = [answer.text for answer in answers]
        judged = [
            Judged(candidate=candidate, chosen=chosen, rejected=rejected)
            for (candidate, _), chosen, rejected in zip(asked, said[::2], said[1::2], strict=True)
        ]
        verdicts = self.judge.judge_all(judged)
        for (candidate, sides), one, verdict in zip(asked, judged, verdicts, strict=True):
            chosen, rejected = one.chosen, one.rejected
            pair = replace(
                self._pair(video_id, candidate, segments),
                chosen=chosen,
                rejected=rejected,
                negative=sides.negative,
                chosen_frames=[int(p) for p in sides.chosen],
                rejected_frames=[int(p) for p in sides.rejected],
                judge_said=verdict.to_json(),
            )
            objection = reason_to_drop(
                chosen, rejected, verdict, post_filter=config.post_filter, texts=config.texts
            )
            words = " ".join(pair.question.casefold().split())
            if objection is None and words in asked_first:
                why = f"the pair {asked_first[words]} asks the same about this video"
                objection = "duplicate", why
            if objection is None:
                asked_first[words] = pair.id
                outcome["kept"].append(asdict(pair))
            else:
                outcome["dropped"].append(_dropped(pair, *objection))
        return outcome

    def _pair(
        self, video_id: str, candidate: Candidate, segments: list[tuple[float, float]]
    ) -> Pair:
        """What is known of a pair before it is answered."""
        what = [video_id, candidate.question, candidate.segment, self.model.name]
        return Pair(
            id=fingerprint({"what": what}),
            video_id=video_id,
            granularity=candidate.granularity,  # type: ignore[arg-type]
            kind=candidate.kind,
            question=candidate.question,
            chosen="",
            rejected="",
            negative="",
            chosen_frames=[],
            rejected_frames=[],
            segment=None if candidate.segment is None else list(segments[candidate.segment]),
            generator=self.model.name,
            sampling=self.sampling,
            judge=self.judge.name,
            source=self.store.info(video_id).names[0],
        )

    def _sides(
        self, candidate: Candidate, times_F: np.ndarray, segments: list[tuple[float, float]]
    ) -> Sides | None:
        config = self.config
        if candidate.segment is None:
            return incomplete(len(times_F), config.dense_frames, config.sparse_frames)
        segment = segments[candidate.segment]
        margin = segment[1] - segment[0]
        return irrelevant(times_F, segment, config.segment_frames, margin)


def _dropped(pair: Pair, name: str, reason: str) -> dict[str, Any]:
    return asdict(pair) | {"filter": name, "reason": reason}


def curate(curator: Curator, out: Path, made_from: dict[str, Any], progress: Progress) -> None:
    """Curate every video of the store into `out`: pairs.jsonl, dropped.jsonl, manifest.json.

    Raises:
      InputError: what is there half-done was made from other settings; or no pair was left.
    """
    with building(out, resume=True) as partial:
        check_unfinished(partial, made_from)
        ledger = Ledger(partial / "ledger.jsonl")
        videos = curator.store.videos
        kept = 0
        for number, video_id in enumerate(videos):
            if video_id not in ledger:
                ledger.add(video_id, curator.curate_video(video_id))
            kept += len(ledger[video_id]["kept"])
            progress(number + 1, len(videos), f"{kept} pairs")
        candidates = [Pair(**pair) for video in videos for pair in ledger[video]["kept"]]
        dropped = [pair for video in videos for pair in ledger[video]["dropped"]]
        pairs, surplus = choose_mix(candidates, curator.config)
        dropped += [_dropped(pair, "mix", "more pairs than the mix asks for") for pair in surplus]
        counts = Counter(pair["filter"] for pair in dropped)
        if not pairs:
            told = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "no question"
            raise InputError(
                f"{partial}: no pair was left of {len(dropped)} candidates ({told}); see its "
                "ledger.jsonl, then delete it, and change config.curate or give more videos"
            )
        write_pairs(partial / "pairs.jsonl", pairs)
        lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in dropped]
        write_text(partial / "dropped.jsonl", "".join(lines))
        write_manifest(
            partial,
            "pairs",
            made_from,
            pairs=len(pairs),
            mix=dict(Counter(pair.granularity for pair in pairs)),
            candidates=len(candidates) + len(dropped) - len(surplus),
            dropped=dict(counts),
        )


def choose_mix(candidates: list[Pair], config: CurateConfig) -> tuple[list[Pair], list[Pair]]:
    """(pairs, surplus): at most `pairs`, `localized_share` of them localized, in seeded order.

    A kind that falls short is not made up for by the other: the manifest tells the mix that came
    out.
    """
    order = np.random.default_rng(config.seed).permutation(len(candidates))
    localized = round(config.pairs * config.localized_share)
    room = {"localized": localized, "comprehensive": config.pairs - localized}
    pairs, surplus = [], []
    for number in order:
        pair = candidates[number]
        if room[pair.granularity] > 0:
            room[pair.granularity] -= 1
            pairs.append(pair)
        else:
            surplus.append(pair)
    return pairs, surplus
