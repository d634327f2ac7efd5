"""Reference and training by several processes: as one process, in one folder, written once."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.artefacts import write_manifest
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import write_pairs
from data_pipelines.synthetic import write_videos
from tests.data_pipelines.test_pairs import PAIR
from tests.parallel.processes import MAIN, environment, free_address, place_of, run_processes
from tpo_jax.cli.main import main
from tpo_jax.preference.reference import read_table
from tpo_jax.termination import EXIT_TERMINATED
from tpo_jax.training.checkpoints import read_params, saved_steps, step_folder
from tpo_jax.training.digests import find_fault
from tpo_jax.training.loop import CHECKPOINTS_FOLDER
from tpo_jax.training.run_log import METRICS_FILE, read_metrics
from tpo_jax.training.step_clock import without_timing

pytestmark = pytest.mark.usefixtures("quick_training")
STEPS = 4
# Verbs one after another, so that JAX is started once.
SCRIPT = """
import sys
from tpo_jax.cli.main import main

for verb in sys.argv[1].split(","):
    code = main([verb, *sys.argv[2:]])
    if code:
        sys.exit(code)
"""
COLOURS = ("red", "blue", "green", "yellow", "white", "black")


def options(root: Path, run: str) -> list[str]:
    return [
        f"--config.run_dir={root / run}",
        f"--config.videos={root / 'videos'}",
        f"--config.frames_dir={root / 'frames'}",
        f"--config.train.steps={STEPS}",
        "--config.train.save_every=2",
        "--config.train.batch_pairs=8",
        "--config.train.warmup_ratio=0",
        "--config.train_frames=4",
        "--config.workers=1",
        "--config.distributed.heartbeat_seconds=20",
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of two videos and ten pairs, in the folders of two runs."""
    root = tmp_path_factory.mktemp("hosts")
    write_videos(root / "videos", root / "truth.json", count=2, events=(4, 4), seed=5)
    assert main(["frames", *options(root, "one")]) == 0
    store = FrameStore.open(root / "frames")
    pairs = [
        replace(
            PAIR,
            id=f"{number:02}",
            video_id=store.videos[number % 2],
            question=f"Which thing follows the {COLOURS[number % 5]} thing?",
            chosen=f"The {COLOURS[number % 5 + 1]} thing" + number % 3 * " moves" + ".",
            rejected=f"The {COLOURS[number % 4]} thing stands.",
        )
        for number in range(10)
    ]
    for run in ("one", "two"):
        folder = root / run / "pairs"
        folder.mkdir(parents=True)
        write_pairs(folder / "pairs.jsonl", pairs)
        write_manifest(folder, "pairs", {"frames": store.fingerprint}, pairs=len(pairs))
    return root


@pytest.fixture(scope="module")
def alone(root: Path) -> Path:
    """The run of one process with eight devices."""
    for verb in ("reference", "train"):
        assert main([verb, *options(root, "one")]) == 0
    return root / "one"


@pytest.fixture(scope="module")
def together(root: Path) -> tuple[Path, list[str]]:
    """The run of two processes with four devices each, and what they printed."""
    arguments = ["-c", SCRIPT, "reference,train", *options(root, "two")]
    return root / "two", run_processes(arguments, processes=2)


def assert_same_training(ours: Path, theirs: Path) -> None:
    """Every metric and every parameter within 1e-5."""
    told, expected = read_metrics(ours / "train"), read_metrics(theirs / "train")
    assert [line["step"] for line in told] == list(range(1, STEPS + 1))
    for one, other in zip(told, expected, strict=True):
        # The rate of the first step is 0: every margin is 0, and rounding says who is ahead.
        if one["step"] <= 2:
            one["reward_accuracy"] = other["reward_accuracy"]
        assert without_timing(one) == pytest.approx(without_timing(other), rel=1e-5, abs=1e-5)
    params, wanted = (read_params(run / "train" / CHECKPOINTS_FOLDER) for run in (ours, theirs))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), params, wanted
    )


def test_two_processes_train_as_one(alone: Path, together: tuple[Path, list[str]]) -> None:
    assert_same_training(together[0], alone)
    # Something was learned, and more than the tolerance.
    first, *_, last = read_metrics(alone / "train")
    assert last["loss"] < first["loss"] - 0.01


def test_two_processes_make_the_same_reference(
    alone: Path, together: tuple[Path, list[str]]
) -> None:
    table, expected = (read_table(run / "reference") for run in (together[0], alone))
    assert list(table) == list(expected) and len(table) == 10
    for pair, logprobs_2L in expected.items():
        np.testing.assert_allclose(table[pair], logprobs_2L, rtol=1e-5, atol=1e-5)


def test_the_folder_is_written_once(alone: Path, together: tuple[Path, list[str]]) -> None:
    run, _ = together

    def files(run: Path) -> set[str]:
        """Those of which there is one, not those that Orbax splits by process."""
        found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
        return {name for name in found if "/default/" not in name and "/events.out." not in name}

    assert files(run) - files(alone) == {"logs/host_1.log"}
    assert files(alone) <= files(run)
    assert len(list(run.rglob("events.out.*"))) == 1
    checkpoints = run / "train" / CHECKPOINTS_FOLDER
    assert saved_steps(checkpoints) == [4, 2]
    for step in (4, 2):
        folder = step_folder(checkpoints, step)
        assert find_fault(folder) is None
        written = {path.name for path in (folder / "default").iterdir()}
        assert {"ocdbt.process_0", "ocdbt.process_1"} <= written
        digests = json.loads((folder / "digests.json").read_text())["files"]
        assert any("ocdbt.process_1" in name for name in digests)


def test_the_first_host_talks(together: tuple[Path, list[str]]) -> None:
    run, (first, second) = together
    assert "tokens a row" in first and "tokens a row" not in second
    log = (run / "logs" / "host_1.log").read_text()
    assert "tokens a row" in log and f"train: {STEPS}/{STEPS}, done in" in log


def killed_after_two_steps(run: Path, to: Path) -> None:
    """A copy of a run as a kill in the third step leaves it."""
    shutil.copytree(run, to)
    (to / "train").rename(to / "train.partial")
    (to / "train.partial" / "manifest.json").unlink()
    shutil.rmtree(step_folder(to / "train.partial" / CHECKPOINTS_FOLDER, 4))


@pytest.mark.slow
def test_a_checkpoint_of_two_goes_on_alone(
    root: Path, alone: Path, together: tuple[Path, list[str]]
) -> None:
    killed_after_two_steps(together[0], root / "then_one")
    assert main(["train", *options(root, "then_one")]) == 0
    assert_same_training(root / "then_one", alone)


@pytest.mark.slow
def test_a_checkpoint_of_two_goes_on_with_four(
    root: Path, alone: Path, together: tuple[Path, list[str]]
) -> None:
    killed_after_two_steps(together[0], root / "then_four")
    arguments = ["-c", SCRIPT, "train", *options(root, "then_four")]
    run_processes(arguments, processes=4, devices=2)
    assert_same_training(root / "then_four", alone)


@pytest.mark.slow
def test_a_signal_to_one_ends_both_after_the_same_step(root: Path) -> None:
    """Only the second host is told that it will be taken away."""
    shutil.copytree(root / "two" / "pairs", root / "taken" / "pairs")
    more = ["--config.train.steps=40", "--config.train.save_every=20"]
    assert main(["reference", *options(root, "taken"), *more]) == 0
    metrics = root / "taken" / "train.partial" / METRICS_FILE
    address = free_address()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", MAIN, "train", *options(root, "taken"), *more],
            env=environment(4, **place_of(number, 2, address)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        while not (metrics.exists() and metrics.stat().st_size):
            assert running[1].poll() is None
            time.sleep(0.02)
        running[1].terminate()
        errors = [one.communicate(timeout=60)[1] for one in running]
    finally:
        for one in running:
            one.kill()
    assert [one.returncode for one in running] == [EXIT_TERMINATED] * 2, errors
    (saved,) = saved_steps(metrics.parent / CHECKPOINTS_FOLDER)
    assert f"saved after step {saved}; " in errors[0]
    assert len(metrics.read_text().splitlines()) == saved < 20
    assert find_fault(step_folder(metrics.parent / CHECKPOINTS_FOLDER, saved)) is None
