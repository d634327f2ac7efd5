"""Arms: what they train on, with which loss, how long; and how rejected answers are drawn."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_pipelines.errors import InputError as DataInputError
from data_pipelines.pairs import Granularity, Pair, read_pairs, write_pairs
from tests.data_pipelines.test_pairs import PAIR
from tpo_jax.cli import arms
from tpo_jax.cli.arms import ARMS, arm_settings, find_arm, reject_at_random, seed_pairs, train_arm
from tpo_jax.cli.config import load_config
from tpo_jax.cli.experiment import BASE, models_of
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.errors import InputError

VIDEOS = [f"v{number}" for number in range(7)]
KINDS: dict[str, Granularity] = {"floor": "localized", "order": "comprehensive"}


def pairs_of(video: str) -> list[Pair]:
    """Two of each kind about a video, each with answers of its own."""
    return [
        replace(
            PAIR,
            id=f"{video}_{kind}_{number}",
            video_id=video,
            granularity=granularity,
            kind=kind,
            chosen=f"{kind} {number} of {video}",
            rejected=f"not {kind} {number} of {video}",
        )
        for kind, granularity in KINDS.items()
        for number in range(2)
    ]


PAIRS = [pair for video in VIDEOS for pair in pairs_of(video)]


def settings_of(folder: Path, *overrides: str) -> RunConfig:
    return read_settings(load_config("demo", [f"--config.run_dir={folder}", *overrides]))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with pairs, over frames of seven videos."""
    store = SimpleNamespace(videos=VIDEOS, fingerprint="f1")
    monkeypatch.setattr(arms, "FrameStore", SimpleNamespace(open=lambda folder: store))
    (tmp_path / "pairs").mkdir()
    write_pairs(tmp_path / "pairs" / "pairs.jsonl", PAIRS)
    return tmp_path


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, RunConfig]]:
    """Which stages were run, in place of running them."""
    ran: list[tuple[str, RunConfig]] = []
    for module, stage in ((arms.reference, "make_reference"), (arms.train, "train_policy")):
        monkeypatch.setattr(module, stage, lambda own, name=stage: ran.append((name, own)))
    return ran


# -------------------------------------------------------------------------------- what is the same


@pytest.mark.parametrize("seeds", [1, 2, 3, 7])
def test_seeds_share_no_video_and_leave_none_out(run: Path, seeds: int) -> None:
    settings = settings_of(run, f"--config.arms.seeds={seeds}")
    of_seed = [seed_pairs(settings, seed) for seed in range(seeds)]
    ids = [pair.id for pairs in of_seed for pair in pairs]
    assert sorted(ids) == sorted(pair.id for pair in PAIRS)
    videos = [{pair.video_id for pair in pairs} for pairs in of_seed]
    assert sum(map(len, videos)) == len(VIDEOS) and set().union(*videos) == set(VIDEOS)
    assert max(map(len, videos)) - min(map(len, videos)) <= 1


def test_a_seed_without_pairs_is_refused(run: Path) -> None:
    settings = settings_of(run, "--config.arms.seeds=8")
    with pytest.raises(InputError, match=r"0 videos of seed 7; lower config\.arms\.seeds"):
        seed_pairs(settings, 7)


@pytest.mark.parametrize("steps", [0, 5])
def test_all_arms_of_a_seed_take_the_same_steps_over_the_same_frames(
    run: Path, done: list[tuple[str, RunConfig]], steps: int
) -> None:
    overrides = [f"--config.train.steps={steps}", "--config.arms.seeds=2", "--config.seed=10"]
    settings = settings_of(run, *overrides, "--config.train.batch_pairs=4")
    for seed in range(2):
        done.clear()
        for name in ARMS:
            own = train_arm(settings, name, seed)
            assert own.run_dir == str(run / "arms" / f"{name}_{seed}")
            assert own == done[-1][1]
        trained = [own for stage, own in done if stage == "train_policy"]
        assert len(trained) == len(ARMS)
        # Two epochs over the seed's pairs, 16 or 12, in fours; of all its pairs, in every arm.
        assert {own.train.steps for own in trained} == {steps or (12, 9)[seed]}
        assert {own.folder("frames") for own in trained} == {run / "frames"}
        assert {own.seed for own in trained} == {10 + seed}
        kept = {"run_dir", "frames_dir", "seed", "loss", "train"}
        for own in trained:
            same = {name: getattr(own, name) for name in vars(settings) if name not in kept}
            assert same == {name: getattr(settings, name) for name in same}
            assert replace(own.train, steps=0) == replace(settings.train, steps=0)


# ------------------------------------------------------------------------------- what is different


def test_weights_of_the_losses(tmp_path: Path) -> None:
    weights = ["--config.loss.dpo_weight=2.0", "--config.loss.sft_weight=0.5"]
    settings = settings_of(tmp_path, *weights)
    found = {name: arm_settings(settings, name, 0).loss for name in ARMS}
    assert {name: (loss.dpo_weight, loss.sft_weight) for name, loss in found.items()} == {
        "sft": (0.0, 0.5),
        "random": (2.0, 0.5),
        "tpo": (2.0, 0.5),
        "dpo": (2.0, 0.0),
        "tpo_localized": (2.0, 0.5),
        "tpo_comprehensive": (2.0, 0.5),
        "sft_localized": (0.0, 0.5),
        "sft_comprehensive": (0.0, 0.5),
    }
    for loss in found.values():
        same = replace(loss, dpo_weight=1.0, sft_weight=1.0)
        assert same == replace(settings.loss, dpo_weight=1.0, sft_weight=1.0)


@pytest.mark.parametrize("name", ARMS)
def test_a_reference_is_made_only_where_it_is_needed(
    run: Path, done: list[tuple[str, RunConfig]], name: str
) -> None:
    train_arm(settings_of(run), name, 0)
    stages = [stage for stage, _ in done]
    assert stages == (["train_policy"] if "sft" in name else ["make_reference", "train_policy"])


def test_no_arm_needs_a_reference_where_the_config_has_no_loss_on_pairs(
    run: Path, done: list[tuple[str, RunConfig]]
) -> None:
    train_arm(settings_of(run, "--config.loss.dpo_weight=0.0"), "tpo", 0)
    assert [stage for stage, _ in done] == ["train_policy"]


def test_pairs_of_each_arm(run: Path, done: list[tuple[str, RunConfig]]) -> None:
    settings = settings_of(run, "--config.arms.seeds=2")
    own = seed_pairs(settings, 1)
    found = {}
    for name in ARMS:
        folder = train_arm(settings, name, 1).folder("pairs")
        found[name] = read_pairs(folder / "pairs.jsonl")
        before = (folder / "pairs.jsonl").stat().st_mtime_ns
        train_arm(settings, name, 1)  # done, and not done again
        assert (folder / "pairs.jsonl").stat().st_mtime_ns == before
    assert found["tpo"] == found["sft"] == found["dpo"] == own
    for granularity in ("localized", "comprehensive"):
        only = [pair for pair in own if pair.granularity == granularity]
        assert found[f"tpo_{granularity}"] == found[f"sft_{granularity}"] == only
    assert found["random"] == reject_at_random(own, settings.seed + 1)


def test_pairs_made_from_others_are_refused(run: Path, done: list[tuple[str, RunConfig]]) -> None:
    train_arm(settings_of(run), "tpo", 0)
    write_pairs(run / "pairs" / "pairs.jsonl", [replace(PAIRS[0], chosen="Other."), *PAIRS[1:]])
    with pytest.raises(DataInputError, match=r"tpo_0/pairs.*delete"):
        train_arm(settings_of(run), "tpo", 0)


def test_an_arm_without_pairs_is_refused(run: Path, done: list[tuple[str, RunConfig]]) -> None:
    localized = [pair for pair in PAIRS if pair.granularity == "localized"]
    write_pairs(run / "pairs" / "pairs.jsonl", localized)
    with pytest.raises(InputError, match="no comprehensive pair"):
        train_arm(settings_of(run), "tpo_comprehensive", 0)
    assert done == []


def test_an_arm_that_is_not_known() -> None:
    with pytest.raises(InputError, match=r"config\.arms\.names: no arm 'tpp'; did you mean tpo"):
        find_arm("tpp")


def test_models_of_an_arm(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "--config.arms.seeds=2")
    assert models_of(settings, BASE) == {BASE: settings}
    assert models_of(settings, "tpo") == {
        f"tpo_{seed}": arm_settings(settings, "tpo", seed) for seed in range(2)
    }


# ------------------------------------------------------------------------------ rejected at random


def test_a_rejected_answer_at_random_is_another_videos_to_the_same_kind() -> None:
    said = {pair.chosen: pair for pair in PAIRS}
    changed = reject_at_random(PAIRS, 0)
    assert [pair.id for pair in changed] == [pair.id for pair in PAIRS]
    for old, new in zip(PAIRS, changed, strict=True):
        assert new.rejected is not None
        other = said[new.rejected]
        assert other.kind == new.kind and other.video_id != new.video_id
        kept = replace(new, rejected=old.rejected, negative=old.negative)
        assert replace(kept, rejected_frames=old.rejected_frames) == old
        assert (new.negative, new.rejected_frames) == ("random", [])
    # Spread over the others, and not one answer for all.
    assert len({pair.rejected for pair in changed}) > len(PAIRS) / 3


def test_it_is_drawn_the_same_again_whatever_the_order() -> None:
    once = {pair.id: pair.rejected for pair in reject_at_random(PAIRS, 0)}
    assert once == {pair.id: pair.rejected for pair in reject_at_random(PAIRS, 0)}
    assert once != {pair.id: pair.rejected for pair in reject_at_random(PAIRS, 1)}


def test_it_never_says_what_is_right() -> None:
    same = [replace(pair, chosen="The red thing.") for pair in PAIRS[:8]]
    assert reject_at_random(same, 0) == []  # all others say the same
    other = replace(PAIRS[-4], chosen="The blue thing.")
    changed = reject_at_random([*same, other], 0)
    assert {pair.rejected for pair in changed if pair.kind == other.kind} == {
        "The red thing.",
        "The blue thing.",
    }
    assert all(pair.chosen != pair.rejected for pair in changed)
    assert {pair.kind for pair in changed} == {other.kind}
    assert reject_at_random(pairs_of("alone"), 0) == []  # there is no other video
