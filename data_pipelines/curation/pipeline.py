"""Curation of a FrameStore into a folder of pairs.

Segments, captions, questions from them, both answers, verdicts, filters, pairs. Each stage keeps
what it did in a ledger beside the artefact (`stages.py`): killed anywhere, a run goes on with the
next unit, and the same pairs come out. What is dropped is kept in `dropped.jsonl` with its reason.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.answering import Answer, Request, VideoModel
from data_pipelines.artefacts import building, fingerprint, write_manifest, write_text
from data_pipelines.curation.candidates import (
    AnyQuestions,
    Captioned,
    caption_videos,
    find_candidates,
)
from data_pipelines.curation.config import CurateConfig
from data_pipelines.curation.filters import objection_of_judge
from data_pipelines.curation.judge import Judge, Judged, Verdict
from data_pipelines.curation.questions import Candidate
from data_pipelines.curation.responses import Scene, Sides, make_sides, spread_or_empty
from data_pipelines.curation.stages import Work
from data_pipelines.curation.text_rules import objection_to_texts
from data_pipelines.curation.written import AGAIN, FORM, judge_prompt, read_verdict, unreadable
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import Pair, write_pairs
from data_pipelines.sampling import inside
from data_pipelines.text_models.text_model import PolicyText, TextModel, TextPrompt

Progress = Callable[[int, int, str], None]
Dropped = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TextJudge:
    """A language model as judge."""

    model: TextModel

    @property
    def name(self) -> str:
        """Who judges, in which form."""
        return f"{FORM} by {self.model.name}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a video."""

    captioned: Captioned
    kept: list[Pair]
    dropped: list[Dropped]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A candidate with both answers."""

    candidate: Candidate
    pair: Pair


@dataclass(frozen=True, kw_only=True)
class Curator:
    """Everything videos are curated with.

    Attributes:
      config: how.
      store: the frames.
      model: who answers.
      maker: who asks.
      judge: who judges.
      sampling: how the model samples; recorded in pairs.
      captioner: who captions; None for the model.
      identity: all that the model's answers depend on; "" for its name.
      train_frames: what training will show of each pair; recorded in pairs.
    """

    config: CurateConfig
    store: FrameStore
    model: VideoModel
    maker: AnyQuestions
    judge: Judge | TextJudge
    sampling: dict[str, Any]
    captioner: TextModel | None = None
    identity: str = ""
    train_frames: int | None = None

    @property
    def videos_at_once(self) -> int:
        """Of how many videos each stage is best done together: that of who takes most."""
        asked = [self.captioner, *(getattr(one, "model", None) for one in (self.maker, self.judge))]
        return max([1, *(model.videos_at_once for model in asked if model is not None)])

    def curate_videos(self, videos: Sequence[str], work: Work) -> list[Outcome]:
        """What becomes of each video."""
        captioned = caption_videos(
            videos,
            config=self.config,
            store=self.store,
            work=work,
            maker=self.maker,
            captioner=self.captioner or PolicyText(self.model, self._identity),
            judge_reads=isinstance(self.judge, TextJudge),
        )
        found = find_candidates(captioned, config=self.config, work=work, maker=self.maker)
        outcomes, asked = [], []
        for video, candidates in zip(captioned, found, strict=True):
            outcomes.append(Outcome(captioned=video, kept=[], dropped=[]))
            asked.append(self._answer(video, candidates, outcomes[-1].dropped, work))
        verdicts = self._judge(videos, asked, work)
        for outcome, pairs, judged in zip(outcomes, asked, verdicts, strict=True):
            self._filter(outcome, pairs, judged)
        return outcomes

    @property
    def _identity(self) -> str:
        return self.identity or self.model.name

    def _answer(
        self, video: Captioned, candidates: list[Candidate], dropped: list[Dropped], work: Work
    ) -> list[_Asked]:
        """Both answers of every candidate that can have two and whose texts may make a pair."""
        config = self.config
        from_file = config.given_chosen == "file"
        to_ask: list[tuple[Candidate, Pair, Sides]] = []
        for number, candidate in enumerate(candidates):
            pair = self._pair(video, candidate, number)
            if candidate.drop:
                dropped.append(_dropped(pair, *candidate.drop))
                continue
            if candidate.ambiguous and config.post_filter:
                dropped.append(_dropped(pair, "ambiguous", candidate.ambiguous))
                continue
            name, sides = self._sides(video, candidate)
            if isinstance(sides, str):
                which = "no_other_frames" if name == "irrelevant" else "too_few_frames"
                dropped.append(_dropped(pair, which, sides))
                continue
            to_ask.append((candidate, pair, sides))
        requests = [
            Request(question=candidate.question, positions=positions)
            for candidate, _, sides in to_ask
            for positions in (sides.chosen, sides.rejected)
            if positions is sides.rejected or not (candidate.given and from_file)
        ]
        answers = iter(work.answers(self.model, self._identity, video.video_id, requests))
        asked = []
        for candidate, pair, sides in to_ask:
            if candidate.given and from_file:
                chosen = Answer(text=candidate.expected, tokens=0, logprob=0.0, finished=True)
                pair = replace(pair, made_with=pair.made_with | {"chosen_by": "file"})
            else:
                chosen = next(answers)
            rejected = next(answers)
            pair = replace(
                pair,
                chosen=chosen.text,
                rejected=rejected.text,
                negative=sides.negative,
                chosen_frames=[int(p) for p in sides.chosen],
                rejected_frames=[int(p) for p in sides.rejected],
                made_with=pair.made_with | {"negative": sides.made_with},
            )
            objection = objection_to_texts(chosen.text, rejected.text, config.texts)
            if objection is None and config.texts.unfinished and not chosen.finished:
                objection = "unfinished", "the chosen answer ran out of tokens"
            # A judge that costs something is not asked about what goes anyway.
            if objection is not None:
                dropped.append(_dropped(pair, *objection))
            else:
                asked.append(_Asked(candidate=candidate, pair=pair))
        return asked

    def _judge(
        self, videos: Sequence[str], asked: list[list[_Asked]], work: Work
    ) -> list[list[Verdict]]:
        judge = self.judge
        judged = [
            [
                Judged(
                    candidate=one.candidate,
                    chosen=one.pair.chosen,
                    rejected=one.pair.rejected or "",
                )
                for one in of
            ]
            for of in asked
        ]
        if not isinstance(judge, TextJudge):
            return [judge.judge_all(of) for of in judged]
        units = [
            (video, [TextPrompt(video_id=video, text=judge_prompt(one)) for one in of])
            for video, of in zip(videos, judged, strict=True)
        ]
        told = work.texts(
            "verdicts",
            judge.model,
            units,
            readable=lambda text: read_verdict(text) is not None,
            reminder=AGAIN,
        )
        return [[read_verdict(text) or unreadable(text) for text in texts] for texts in told]

    def _filter(self, outcome: Outcome, asked: list[_Asked], verdicts: list[Verdict]) -> None:
        """The judge's filters, then duplicates among what they let pass."""
        first: dict[str, str] = {}  # of the questions kept, the pair
        for one, verdict in zip(asked, verdicts, strict=True):
            pair = replace(one.pair, judge_said=verdict.to_json())
            objection = objection_of_judge(verdict) if self.config.post_filter else None
            question = " ".join(pair.question.casefold().split())
            if objection is None and question in first:
                why = f"the pair {first[question]} asks the same about this video"
                objection = "duplicate", why
            if objection is not None:
                outcome.dropped.append(_dropped(pair, *objection))
                continue
            first[question] = pair.id
            outcome.kept.append(pair)

    def _pair(self, video: Captioned, candidate: Candidate, number: int) -> Pair:
        """What is known of a pair before it is answered."""
        config = self.config
        segment = None if candidate.segment is None else list(video.segments[candidate.segment])
        # All that its answers depend on: pairs of runs that differ in any of it can be mixed.
        what = {
            "asked": [video.video_id, candidate.question, segment],
            "by": self._identity,
            "frames": [config.segment_frames, config.dense_frames, config.sparse_frames],
            "negatives": [asdict(config.negatives), config.seed],
            "chosen": [config.given_chosen, candidate.expected if candidate.given else ""],
        }
        if candidate.drop:
            what["no question"] = [candidate.kind, number]
        reads = "the caption of the segment"
        if candidate.segment is None:
            reads = "the captions in order"
        if candidate.given:
            reads = "the answer that came with the question"
        made_with: dict[str, Any] = {
            "questions": self.maker.name,
            "chosen_by": "model",
            "judge_reads": reads,
            "expected": candidate.expected,
            "seed": config.seed,
        }
        if self.train_frames is not None:
            made_with["train_frames"] = self.train_frames
        return Pair(
            id=fingerprint(what),
            video_id=video.video_id,
            granularity=candidate.granularity,  # type: ignore[arg-type]
            kind=candidate.kind,
            question=candidate.question,
            chosen="",
            rejected="",
            negative="",
            chosen_frames=[],
            rejected_frames=[],
            segment=segment,
            generator=self.model.name,
            sampling=self.sampling,
            judge=self.judge.name,
            made_with=made_with,
            round=config.round,
            source=self.store.info(video.video_id).names[0],
        )

    def _sides(self, video: Captioned, candidate: Candidate) -> tuple[str, Sides | str]:
        """The negative's name, and the frames of both sides or why there are none."""
        config, times_F = self.config, self.store.info(video.video_id).times_F
        segment = None
        if candidate.segment is None:
            chosen = spread_or_empty(np.arange(len(times_F)), config.dense_frames)
        else:
            segment = video.segments[candidate.segment]
            chosen = spread_or_empty(inside(times_F, *segment), config.segment_frames)
        what = [config.seed, video.video_id, candidate.question, candidate.segment]
        seed = int(fingerprint({"what": what})[:8], 16)
        name = config.negatives.draw(candidate.granularity, np.random.default_rng([seed, 0]))
        scene = Scene(
            times_F=times_F,
            segment=segment,
            chosen=chosen,
            sparse=config.sparse_frames,
        )
        return name, make_sides(name, scene, config.negatives, seed)


def _dropped(pair: Pair, name: str, reason: str) -> Dropped:
    return asdict(pair) | {"filter": name, "reason": reason}


def curate(
    curator: Curator,
    out: Path,
    made_from: dict[str, Any],
    progress: Progress,
    work_folder: Path | None = None,
) -> None:
    """Curate every video of the store into `out`.

    What is written there: pairs.jsonl, dropped.jsonl, captions.jsonl, manifest.json. The ledgers
    are kept in `work_folder`, by default `curation` beside `out`; they may be deleted at any time,
    and are for use by any later run.

    Raises:
      InputError: `out` exists; whoever was asked refuses; or no pair was left.
    """
    if out.exists():
        raise InputError(f"{out}: exists already; delete it or choose another name")
    work = Work(work_folder or out.with_name("curation"), curator.store.fingerprint)
    outcomes = _curate_all(curator, curator.store.videos, work, progress)
    candidates = [pair for outcome in outcomes for pair in outcome.kept]
    dropped = [pair for outcome in outcomes for pair in outcome.dropped]
    pairs, surplus = choose_mix(candidates, curator.config)
    dropped += [_dropped(pair, "mix", "more pairs than the mix asks for") for pair in surplus]
    counts = Counter(pair["filter"] for pair in dropped)
    if not pairs:
        write_text(work.folder / "dropped.jsonl", _lines(dropped))
        told = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "no question"
        raise InputError(
            f"{out}: no pair was left of {len(dropped)} candidates ({told}); see "
            f"{work.folder / 'dropped.jsonl'}, then change config.curate or give more videos"
        )
    captions = [asdict(outcome.captioned) for outcome in outcomes]
    with building(out) as partial:
        write_pairs(partial / "pairs.jsonl", pairs)
        write_text(partial / "dropped.jsonl", _lines(dropped))
        write_text(partial / "captions.jsonl", _lines(captions))
        write_manifest(
            partial,
            "pairs",
            made_from,
            pairs=len(pairs),
            mix=dict(Counter(pair.granularity for pair in pairs)),
            negatives=dict(Counter(pair.negative for pair in pairs)),
            kinds=dict(Counter(pair.kind for pair in pairs)),
            candidates=len(candidates) + len(dropped) - len(surplus),
            dropped=dict(counts),
        )


def curate_share(curator: Curator, out: Path, host: int, hosts: int, progress: Progress) -> None:
    """A host's share of the work of `curate`, which then finds it in the ledgers."""
    work = Work(out.with_name("curation"), curator.store.fingerprint, host=f".host_{host}")
    _curate_all(curator, curator.store.videos[host::hosts], work, progress)


def _curate_all(
    curator: Curator, videos: Sequence[str], work: Work, progress: Progress
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for first in range(0, len(videos), curator.videos_at_once):
        group = videos[first : first + curator.videos_at_once]
        for outcome in curator.curate_videos(group, work):
            outcomes.append(outcome)
            progress(len(outcomes), len(videos), told_yield(outcomes))
    return outcomes


def told_yield(outcomes: Sequence[Outcome]) -> str:
    """How many pairs of how many candidates so far, and what dropped most of the others."""
    kept = sum(len(one.kept) for one in outcomes)
    gone = Counter(entry["filter"] for one in outcomes for entry in one.dropped)
    most = ", ".join(f"{count} {name}" for name, count in gone.most_common(2))
    return f"{kept} pairs of {kept + gone.total()}" + (f" ({most})" if most else "")


def _lines(entries: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


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
