"""`tpo train` with config.train_dir in a bucket, and everything that reads what it leaves there."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from data_pipelines.artefacts import UNFINISHED_NAME, names_in
from data_pipelines.frames import FrameStore
from data_pipelines.synthetic import write_videos
from tests.cli.test_demo import refused
from tests.cli.test_train import options, write_given_pairs
from tests.parallel.processes import environment, free_address, place_of
from tpo_jax.cli.config import load_config
from tpo_jax.cli.export import load_policy
from tpo_jax.cli.main import main
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.training.checkpoints import SAVED_FILE, read_params, saved_steps
from tpo_jax.training.digests import stored_files
from tpo_jax.training.loop import CHECKPOINTS_FOLDER
from tpo_jax.training.run_log import METRICS_FILE, read_metrics
from tpo_jax.training.step_clock import without_timing

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 8


def told(root: Path, train_dir: epath.PathLike | str = "") -> list[str]:
    """Options of a run that is found in RUN_DIR=run below the working directory."""
    return [
        *options(root),
        "--config.run_dir=run",
        f"--config.train_dir={train_dir}",
        f"--config.train.steps={STEPS}",
        "--config.train.keep_last=3",
    ]


def start(cwd: Path, arguments: list[str], devices: int = 8, **place: str) -> subprocess.Popen:
    """`tpo train` in a process of its own; what it says goes to `said` there."""
    with (cwd / "said").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tpo_jax.cli.main", "train", *arguments],
            cwd=cwd,
            env=environment(devices, PYTHONPATH=str(REPOSITORY), **place),
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def said_in(cwd: Path) -> str:
    return (cwd / "said").read_text()


def finish(running: subprocess.Popen, cwd: Path) -> str:
    """Waits for a process that must end well; returns what it said."""
    running.wait(timeout=240)
    assert running.returncode == 0, said_in(cwd)[-3000:]
    return said_in(cwd)


def settings_of(root: Path, train_dir: epath.PathLike | str, run_dir: Path) -> RunConfig:
    arguments = [*told(root, train_dir), f"--config.run_dir={run_dir}"]
    return read_settings(load_config("demo", arguments))


def same_training(ours: epath.PathLike, theirs: epath.PathLike) -> None:
    """Curves without times, and parameters, are the same to the last bit."""
    curves = [[without_timing(line) for line in read_metrics(each)] for each in (ours, theirs)]
    assert len(curves[0]) == STEPS and curves[0] == curves[1]
    params = [read_params(epath.Path(each) / CHECKPOINTS_FOLDER) for each in (ours, theirs)]
    jax.tree.map(np.testing.assert_array_equal, *params)


def content(folder: epath.PathLike) -> Mapping[str, bytes]:
    folder = epath.Path(folder)
    return {name: (folder / name).read_bytes() for name in stored_files(folder)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames, pairs, reference, and the run trained on a disk without disturbance."""
    root = tmp_path_factory.mktemp("bucket")
    run = f"--config.run_dir={root / 'local' / 'run'}"
    write_videos(root / "videos", root / "truth.json", count=1, events=(4, 4), seed=5)
    assert main(["frames", run, *options(root)]) == 0
    store = FrameStore.open(root / "local" / "run" / "frames")
    write_given_pairs(root / "pairs.jsonl", store.videos[0])
    assert main(["reference", run, *options(root)]) == 0
    shutil.copytree(root / "local", root / "inputs")
    finish(start(root / "local", told(root)), root / "local")
    return root


@pytest.mark.slow
def test_killed_and_gone_on_with_on_another_machine(
    root: Path,
    bucket: epath.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train_dir = bucket / "runs" / "mine" / "train"
    arguments = told(root, train_dir)
    shutil.copytree(root / "inputs", root / "first")
    running = start(root / "first", arguments)
    while SAVED_FILE not in names_in(train_dir / CHECKPOINTS_FOLDER / "step_2"):
        assert running.poll() is None, said_in(root / "first")[-3000:]
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert UNFINISHED_NAME in names_in(train_dir) and len(read_metrics(train_dir)) < STEPS

    # Nothing of the first machine is left.
    shutil.copytree(root / "inputs", root / "second")
    monkeypatch.chdir(root / "second")
    other = [*arguments, "--config.seed=5"]
    line = refused(capsys, "train", Path("run"), *other)
    assert f"{train_dir}: made from other settings (seed: found 0, expected 5)" in line
    assert main(["train", *arguments, "--debug-batch=1"]) == 0
    assert "the parameters are those after step" in capsys.readouterr().out
    out = finish(start(root / "second", arguments), root / "second")
    assert f" {STEPS}/{STEPS}" in out and " 1/8" not in out, out
    same_training(train_dir, root / "local" / "run" / "train")
    assert names_in(train_dir) == {
        "manifest.json", "made_from.json", METRICS_FILE, CHECKPOINTS_FOLDER
    }  # fmt: skip
    assert saved_steps(train_dir / CHECKPOINTS_FOLDER) == [8, 6, 4]

    before = stored_files(train_dir)
    assert main(["train", *arguments]) == 0
    again = capsys.readouterr()
    assert "train: 8/8" in again.err and "padding" not in again.out  # said where training begins
    assert main(["train", *arguments, "--debug-batch=1"]) == 0
    assert "after step 8" in capsys.readouterr().out
    assert "made from other settings" in refused(capsys, "train", Path("run"), *other)
    assert stored_files(train_dir) == before

    for extra in ([], ["--step=6"]):
        name = "".join(extra) or "newest"
        assert main(["export", f"ours_{name}", *arguments, *extra]) == 0
        monkeypatch.chdir(root / "local")
        assert main(["export", f"theirs_{name}", *told(root), *extra]) == 0
        ours, theirs = root / "second" / f"ours_{name}", root / "local" / f"theirs_{name}"
        assert content(ours) == content(theirs) and "model.safetensors" in content(ours)
        monkeypatch.chdir(root / "second")
    policies = [
        load_policy(settings_of(root, train_dir, root / "second" / "run")),
        load_policy(settings_of(root, "", root / "local" / "run")),
    ]
    assert policies[0].fingerprint == policies[1].fingerprint
    jax.tree.map(np.testing.assert_array_equal, policies[0].params, policies[1].params)

    # The mend that the message names.
    damaged = next(
        train_dir / name for name in before if "step_8/default" in name and "/d/" in name
    )
    damaged.write_bytes(damaged.read_bytes()[:-1])
    line = refused(capsys, "export", Path("run"), *arguments, "late")
    assert f"{train_dir}/checkpoints/step_8: damaged (" in line
    assert f"write a file UNFINISHED into {train_dir} and run `tpo train` again" in line
    (train_dir / UNFINISHED_NAME).write_text("")
    out = finish(start(root / "second", arguments), root / "second")
    assert "going on from the checkpoint of step 6" in out
    same_training(train_dir, root / "local" / "run" / "train")


@pytest.mark.slow
def test_hosts_need_only_the_bucket_in_common(root: Path, bucket: epath.Path) -> None:
    """Each of two has its own copy of frames, pairs and reference, as machines do."""
    train_dir = bucket / "runs" / "two_hosts"
    address, running = free_address(), []
    for number in range(2):
        shutil.copytree(root / "inputs", root / f"host_{number}")
        place = place_of(number, 2, address)
        arguments = told(root, train_dir)
        running.append(start(root / f"host_{number}", arguments, devices=4, **place))
    for number, one in enumerate(running):
        finish(one, root / f"host_{number}")
    ours, theirs = read_metrics(train_dir), read_metrics(root / "local" / "run" / "train")
    for name in without_timing(theirs[0]):
        np.testing.assert_allclose(
            [line[name] for line in ours], [line[name] for line in theirs], rtol=1e-5, atol=1e-5
        )
    assert saved_steps(train_dir / CHECKPOINTS_FOLDER) == [8, 6, 4]
    assert not (root / "host_1" / "run" / "train_notes").exists()


def test_only_what_can_be_is_in_a_bucket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "train", tmp_path, "--config.run_dir=gs://bucket/run")
    assert "run_dir is gs://bucket/run; it must be a local folder" in line
    line = refused(capsys, "train", tmp_path, "--config.train_dir=s3://bucket/train")
    assert "train_dir is s3://bucket/train; of buckets only gs:// will do" in line


def test_a_run_below_another_trains_below_it() -> None:
    settings = settings_of(Path("none"), "gs://bucket/train", Path("runs/mine"))
    below = settings.below("round_1")
    assert str(below.folder("train")) == "gs://bucket/train/round_1"
    assert str(below.folder("pairs")) == "runs/mine/round_1/pairs"
    assert str(below.folder("frames")) == "runs/mine/frames"
    assert str(settings_of(Path("none"), "", Path("runs/mine")).below("a").folder("train")) == (
        "runs/mine/a/train"
    )
