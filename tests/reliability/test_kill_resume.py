"""Real processes of `tpo`, killed and terminated: the run ends as an undisturbed one."""

import signal
import subprocess
import time
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.reliability.kill_resume import Trial, kill_once, prepare, start_tpo
from tpo_jax.termination import EXIT_TERMINATED, GOES_ON
from tpo_jax.training.checkpoints import saved_steps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """What it compiles is kept for the others."""
    root = tmp_path_factory.mktemp("killed")
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    prepare(root, kept)
    trial = Trial(root, "undisturbed", kept)
    trial.finish()
    return trial


def equal(one: Trial, other: Trial) -> None:
    (curve, params), (other_curve, other_params) = one.result(), other.result()
    assert curve == other_curve
    for ours, theirs in zip(params, other_params, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_killed_while_saving_then_terminated_it_ends_bit_equal(undisturbed: Trial) -> None:
    trial = Trial(undisturbed.root, "both", undisturbed.environment)
    kill = kill_once(trial, 0, "save", np.random.default_rng(0), 0)
    assert kill is not None and kill.phase == "save"
    said_before = (trial.root / "log.txt").read_text()
    # The third step from the start on: not one after which a checkpoint is due.
    terminate(trial.start(), lambda: trial.steps_done() >= trial.first + 3, seconds=60)
    done = trial.steps_done()
    assert saved_steps(trial.checkpoints)[0] == done >= trial.first + 3
    assert_said(trial, said_before, f"tpo train: terminated; saved after step {done}; {GOES_ON}")

    trial.finish()
    equal(trial, undisturbed)


def test_terminated_in_the_first_compilation(undisturbed: Trial) -> None:
    trial = Trial(undisturbed.root, "compiling")  # which keeps nothing compiled
    said_before = (trial.root / "log.txt").read_text()
    process = trial.start("--config.train.grace_seconds=0.5")
    terminate(process, lambda: trial.phase() == "compile", seconds=15)
    assert not saved_steps(trial.checkpoints)
    assert_said(trial, said_before, f"tpo: ended 0.5 s after SIGTERM; {GOES_ON}")


@pytest.mark.parametrize(
    ("verb", "ready"),
    [
        ("frames", "frames.partial"),
        ("curate", "curation"),
        ("reference", "reference.partial"),
        ("eval", "eval.partial"),
    ],
)
def test_every_stage_is_terminated_and_goes_on(undisturbed: Trial, verb: str, ready: str) -> None:
    trial = Trial(undisturbed.root, f"terminated_{verb}", undisturbed.environment)
    root = undisturbed.root
    artefact = {"curate": "pairs"}.get(verb, verb)
    if artefact in ("pairs", "reference"):
        (trial.folder / artefact).unlink()
    if verb == "eval":
        (trial.folder / "train").symlink_to(undisturbed.folder / "train")
    options = {
        "frames": [f"--config.frames_dir={trial.folder / 'frames'}", "--config.workers=2"],
        "eval": [
            f"--config.eval.videos={root / 'videos'}",
            f"--config.eval.truth={root / 'truth.json'}",
        ],
    }.get(verb, [])

    def start() -> subprocess.Popen:
        return start_tpo(verb, root, trial.folder, options, environment=undisturbed.environment)

    terminate(start(), lambda: (trial.folder / ready).exists(), seconds=15)
    assert not (trial.folder / artefact).exists()
    process = start()
    assert process.wait(300) == 0
    assert (trial.folder / artefact).is_dir()


def terminate(process: subprocess.Popen, ready: Callable[[], bool], *, seconds: float) -> None:
    """Sends SIGTERM when it is ready; it must end within so many seconds, and well."""
    try:
        while not ready():
            assert process.poll() is None, "ended before that; log.txt says why"
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        assert process.wait(seconds) == EXIT_TERMINATED
    finally:
        process.kill()


def assert_said(trial: Trial, before: str, line: str) -> None:
    """Of itself, a process has said this line since, and no other."""
    told = (trial.root / "log.txt").read_text()[len(before) :].splitlines()
    assert [one for one in told if one.startswith("tpo")] == [line]
