"""`tpo train` on a few pairs: what it tells, and `--debug-batch`, which finds what is bad."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.artefacts import read_manifest
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import Pair, write_pairs
from data_pipelines.synthetic import write_videos
from tests.cli.test_demo import SMALL, refused
from tests.training.test_profile import profiled_steps
from tpo_jax.cli.config import load_config
from tpo_jax.cli.main import main
from tpo_jax.cli.settings import read_settings
from tpo_jax.cli.train_dry_run import checkpoint_bytes
from tpo_jax.cli.train_inputs import read_inputs
from tpo_jax.preference.reference import part_path, read_table, write_part
from tpo_jax.training.run_log import BAD_BATCHES_FILE, read_metrics

pytestmark = pytest.mark.usefixtures("quick_training")
BAD_PAIR = "pair_2"
GOOD: list[float] = []  # what stood in the table


def write_given_pairs(path: Path, video: str) -> None:
    """Four pairs about one video."""
    pairs = [
        Pair(
            id=f"pair_{number}",
            video_id=video,
            granularity="localized",
            kind="given",
            question="Which thing is shown?",
            chosen=f"The {colour} thing.",
            rejected="No thing.",
            negative="given",
            chosen_frames=[],
            rejected_frames=[],
            segment=None,
            generator="by hand",
            sampling={},
            judge="none",
        )
        for number, colour in enumerate(("red", "blue", "green", "yellow"))
    ]
    write_pairs(path, pairs)


def options(root: Path) -> list[str]:
    return [
        f"--config.videos={root / 'videos'}",
        f'--config.mixture=("{root / "pairs.jsonl"}",)',
        *SMALL,
        "--config.train.steps=2",
        "--config.train_frames=4",
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames, pairs, and a table in which the log-probs of one pair are not finite."""
    root = tmp_path_factory.mktemp("debug")
    run = f"--config.run_dir={root / 'run'}"
    write_videos(root / "videos", root / "truth.json", count=1, events=(4, 4), seed=5)
    assert main(["frames", run, *options(root)]) == 0
    write_given_pairs(root / "pairs.jsonl", FrameStore.open(root / "run" / "frames").videos[0])
    assert main(["reference", run, *options(root)]) == 0
    set_reference(root, np.nan)
    return root


def set_reference(root: Path, value: float) -> None:
    """Puts a value into the table of the bad pair."""
    table = read_table(root / "run" / "reference")
    GOOD.append(float(table[BAD_PAIR][0, 0]))
    table[BAD_PAIR][0, 0] = value
    write_part(root / "run" / "reference", 0, list(table), np.stack(list(table.values())))
    assert not part_path(root / "run" / "reference", 1).exists()


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_pair_that_is_not_finite_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = root / "run"
    line = refused(capsys, "train", run, *options(root))
    assert "at step 1 the loss is nan" in line and "--debug-batch=1" in line
    bad = json.loads((run / "train.partial" / BAD_BATCHES_FILE).read_text())
    assert bad["step"] == 1 and BAD_PAIR in bad["pairs"] and len(bad["pairs"]) == 8

    before = files(root)
    assert main(["train", f"--config.run_dir={run}", *options(root), "--debug-batch=1"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "no checkpoint yet" in told[0]
    assert [one.split(":")[0] for one in told[1:]] == [f"pair_{number}" for number in range(4)]
    for one in told[1:]:
        fault = "not finite: the reference's log-probs" if one.startswith(BAD_PAIR) else "finite"
        assert one.endswith(f"; {fault}") and "loss " in one and "grad_norm " in one
    assert files(root) == before


def test_a_dry_run_trains_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    run = f"--config.run_dir={root / 'run'}"
    assert main(["train", run, *options(root), "--dry-run", "--config.train.save_every=1"]) == 0
    loading, steps, disk, _ = capsys.readouterr().out.splitlines()
    assert "tokens a row" in loading
    assert steps == "2 steps of 8 pairs, 4 times each of 4"
    assert "a checkpoint every 1 steps" in disk and "up to 2 at a time" in disk
    assert disk.endswith(f"GB free at {root / 'run'}")
    assert files(root) == before


@pytest.mark.slow
def test_a_good_batch_of_a_finished_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_reference(root, GOOD[0])
    arguments = ["train", f"--config.run_dir={root / 'run'}", *options(root)]
    assert main([*arguments, "--config.profile.steps=2:2"]) == 0
    assert profiled_steps(root / "run" / "train" / "profile") == [2]
    time = read_manifest(root / "run" / "train", "train")["time"]
    assert 0 < time["step_seconds"] < time["wall_seconds"] and 0 < time["goodput"] < 1
    last = read_metrics(root / "run" / "train")[-1]
    assert last["tokens_per_second_per_chip"] == pytest.approx(
        last["tokens"] / last["step_seconds"] / 8
    )
    inputs = read_inputs(read_settings(load_config("demo", arguments[1:])))
    written = [
        path for path in (root / "run/train/checkpoints/step_2").rglob("*") if path.is_file()
    ]
    # What `--dry-run` says of the disk; Orbax compresses.
    told_bytes = checkpoint_bytes(inputs)
    assert 0.8 * told_bytes < sum(path.stat().st_size for path in written) < 1.1 * told_bytes
    assert "mfu" not in last  # nobody knows the peak of a CPU
    before = files(root)
    capsys.readouterr()
    assert main([*arguments, "--debug-batch=2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "after step 2" in told[0] and len(told) == 5
    assert all(one.endswith("; finite") for one in told[1:])
    assert files(root) == before
    line = refused(capsys, "train", root / "run", *options(root), "--debug-batch=3")
    assert "the steps of this run are 1 to 2" in line
