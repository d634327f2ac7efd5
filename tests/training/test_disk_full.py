"""A disk that takes no more while a checkpoint is saved: a line says so, and those before it stay.

The limit of a file's size stands for the disk's end: the system refuses the very same calls, with
another word. Where file systems may be mounted, a small one is filled up too.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.killed_saves import state_of
from tpo_jax.errors import InputError
from tpo_jax.training.checkpoints import Checkpoints, SaveConfig, saved_steps, step_folder
from tpo_jax.training.digests import find_fault

ROOT = Path(__file__).parents[2]
# Saves twice; then files may have `limit` bytes, or the disk is full but for so many.
SCRIPT = """
import resource, sys
from pathlib import Path
from tests.training.killed_saves import state_of
from tpo_jax.errors import InputError
from tpo_jax.training.checkpoints import Checkpoints, SaveConfig

folder, how = Path(sys.argv[1]), sys.argv[2]
try:
    with Checkpoints(folder, config=SaveConfig(save_every=1)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state_of(step), {})
        checkpoints._manager.wait_until_finished()
        if how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        elif how == "fill":
            (folder.parent / "filler").write_bytes(bytes({filler}))
        checkpoints.save(3, state_of(3), {})
        checkpoints.save(4, state_of(4), {})
except InputError as error:
    print(error)
    sys.exit(2)
"""
STATE_BYTES = 4 * 1024 * 1024
DISK_BYTES = 32 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def save_until_refused(folder: Path, how: str, filler: int = 0) -> str:
    """The line that is said."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{filler}", str(filler)), str(folder), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    return line


def assert_goes_on(folder: Path) -> None:
    assert saved_steps(folder) == [2, 1]
    assert not any(find_fault(step_folder(folder, step)) for step in (1, 2))
    with Checkpoints(folder, config=SaveConfig(save_every=1), warn=pytest.fail) as checkpoints:
        assert checkpoints.latest == 2
        checkpoints.save(3, state_of(3), {})
    assert saved_steps(folder) == [3, 2]
    assert find_fault(step_folder(folder, 3)) is None


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    line = save_until_refused(folder, "limit")
    assert line.startswith(f"checkpoint of step 3: {folder}: File too large (")
    assert "MB free, 4.2 MB needed); make room, then run the same command again" in line
    assert_goes_on(folder)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    line = save_until_refused(folder, "fill", filler=DISK_BYTES - 5 * STATE_BYTES // 2)
    assert line.startswith(f"checkpoint of step 3: {folder}: No space left on device (")
    (small_disk / "filler").unlink()
    assert_goes_on(folder)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with (
        pytest.raises(InputError, match="checkpoints: is gone"),
        Checkpoints(folder, config=SaveConfig(save_every=1)) as checkpoints,
    ):
        checkpoints.save(1, state_of(1), {})
        checkpoints._manager.wait_until_finished()
        shutil.rmtree(folder)
        checkpoints.save(2, state_of(2), {})
    assert not folder.exists(), "half a run is not begun anew"
