"""SIGKILL while a checkpoint is written: what has its name is whole, and the next save works."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training import killed_saves
from tests.training.killed_saves import kernel_of, state_of
from tpo_jax.training.checkpoints import Checkpoints, SaveConfig, saved_steps, step_folder
from tpo_jax.training.digests import find_fault

ROOT = Path(__file__).parents[2]


def kill_in_a_save(folder: Path, seconds: float) -> None:
    """Kills a process so long after it began to write a checkpoint, which is not its first."""
    first = max(saved_steps(folder), default=0)
    process = subprocess.Popen(
        [sys.executable, killed_saves.__file__, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        while process.poll() is None:
            if max(saved_steps(folder), default=0) >= first + 2 and any(folder.glob("step_*-tmp*")):
                time.sleep(seconds)
                process.kill()
        assert process.returncode == -signal.SIGKILL
    finally:
        process.kill()


def test_the_newest_with_a_name_is_whole_and_the_run_goes_on(tmp_path: Path) -> None:
    for seconds in (0, 0.003, 0.01):  # a save takes about 0.03
        kill_in_a_save(tmp_path, seconds)
        steps = saved_steps(tmp_path)
        assert steps and not any(find_fault(step_folder(tmp_path, step)) for step in steps)
    with Checkpoints(tmp_path, config=SaveConfig(save_every=1), warn=pytest.fail) as checkpoints:
        assert checkpoints.latest == steps[0]
        (kernel,) = jax.tree.leaves(checkpoints.restore(state_of(0)).params)
        np.testing.assert_array_equal(kernel, kernel_of(steps[0]))
        checkpoints.save(steps[0] + 1, state_of(0), {})
    assert saved_steps(tmp_path) == [steps[0] + 1, steps[0]]
    assert find_fault(step_folder(tmp_path, steps[0] + 1)) is None
