"""Ways of training the demo's model that differ in one thing each: the method and its controls.

An arm is a run folder of its own, RUN_DIR/arms/ARM_SEED, over the frames of RUN_DIR and pairs made
out of those of RUN_DIR. All arms of a seed take the same number of steps on the same frames.
A seed has videos of its own: seed s learns from every so-many-th video, beginning with the s-th.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data_pipelines.artefacts import building, write_manifest
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import Granularity, Pair, read_pairs, write_pairs
from tpo_jax.cli import reference, train
from tpo_jax.cli.settings import RunConfig, is_done
from tpo_jax.errors import InputError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How an arm trains.

    Attributes:
      told: what it is, for a page.
      dpo_weight, sft_weight: of its loss, as parts of the config's.
      rejected: whose answer is rejected: the model's own without the frames that matter, or one
        from another video to a question of the same kind.
      only: pairs of one granularity alone.
    """

    told: str
    dpo_weight: float = 1.0
    sft_weight: float = 1.0
    rejected: Literal["own", "random"] = "own"
    only: Granularity | None = None


ARMS = {
    "sft": Arm(told="SFT on the chosen answers", dpo_weight=0.0),
    "random": Arm(told="TPO with rejected answers from other videos", rejected="random"),
    "tpo": Arm(told="TPO: DPO and SFT"),
    "dpo": Arm(told="DPO without SFT", sft_weight=0.0),
    "tpo_localized": Arm(told="TPO on localized pairs only", only="localized"),
    "tpo_comprehensive": Arm(told="TPO on comprehensive pairs only", only="comprehensive"),
    "sft_localized": Arm(told="SFT on localized pairs only", dpo_weight=0.0, only="localized"),
    "sft_comprehensive": Arm(
        told="SFT on comprehensive pairs only", dpo_weight=0.0, only="comprehensive"
    ),
}


def find_arm(name: str) -> Arm:
    """An arm by its name; InputError where there is none."""
    if name not in ARMS:
        raise InputError(f"config.arms.names: no arm {name!r}{did_you_mean(name, ARMS)}")
    return ARMS[name]


def arm_settings(settings: RunConfig, name: str, seed: int) -> RunConfig:
    """The config of an arm's own run folder."""
    arm = find_arm(name)
    return replace(
        settings.below(f"arms/{name}_{seed}"),
        seed=settings.seed + seed,
        loss=replace(
            settings.loss,
            dpo_weight=settings.loss.dpo_weight * arm.dpo_weight,
            sft_weight=settings.loss.sft_weight * arm.sft_weight,
        ),
    )


def train_arm(settings: RunConfig, name: str, seed: int) -> RunConfig:
    """Pairs, reference and training of an arm, each where it is not done; returns its config."""
    own = arm_settings(settings, name, seed)
    pairs = seed_pairs(settings, seed)
    steps = settings.train.steps or max(
        1, settings.train.epochs * len(pairs) // settings.train.batch_pairs
    )
    own = replace(own, train=replace(own.train, steps=steps))
    _write_arm_pairs(own, find_arm(name), pairs, settings)
    if own.loss.needs_reference:
        reference.make_reference(own)
    train.train_policy(own)
    return own


def seed_pairs(settings: RunConfig, seed: int) -> list[Pair]:
    """The pairs of the run about the videos of a seed.

    Raises:
      InputError: there are none.
    """
    pairs = read_pairs(settings.folder("pairs") / "pairs.jsonl")
    videos = FrameStore.open(settings.folder("frames")).videos
    own = set(videos[seed :: settings.arms.seeds])
    chosen = [pair for pair in pairs if pair.video_id in own]
    if not chosen:
        raise InputError(
            f"{settings.folder('pairs')}: no pair is about the {len(own)} videos of seed {seed}; "
            "lower config.arms.seeds or give more videos"
        )
    return chosen


def _write_arm_pairs(own: RunConfig, arm: Arm, pairs: Sequence[Pair], settings: RunConfig) -> None:
    out = own.folder("pairs")
    chosen = [pair for pair in pairs if arm.only in (None, pair.granularity)]
    if not chosen:
        raise InputError(f"{settings.folder('pairs')}: has no {arm.only} pair for {out}")
    if arm.rejected == "random":
        chosen = reject_at_random(chosen, own.seed)
    store = FrameStore.open(settings.folder("frames"))
    made_from = {
        "frames": store.fingerprint,
        "ids": [pair.id for pair in chosen],
        "answers": [[pair.chosen, pair.rejected] for pair in chosen],
    }
    if is_done(out, "pairs", made_from):
        return
    with building(out) as partial:
        write_pairs(partial / "pairs.jsonl", chosen)
        write_manifest(partial, "pairs", made_from, pairs=len(chosen))


def reject_at_random(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """The pairs with another rejected answer: a chosen one of another video, of the same kind.

    It differs from the pair's own chosen answer. A pair for which there is none is left out.
    """
    by_kind: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_kind.setdefault(pair.kind, []).append(pair)
    changed = []
    for pair in pairs:
        others = [
            one.chosen
            for one in by_kind[pair.kind]
            if one.video_id != pair.video_id and one.chosen != pair.chosen
        ]
        if others:
            rng = np.random.default_rng([seed, *pair.id.encode()])
            answer = others[int(rng.integers(len(others)))]
            changed.append(replace(pair, rejected=answer, negative="random", rejected_frames=[]))
    return changed
