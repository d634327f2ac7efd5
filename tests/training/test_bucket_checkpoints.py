"""Checkpoints that Orbax writes into a bucket: whole, damaged, and not written to their end."""

import itertools

import jax
import numpy as np
import pytest
from etils import epath

from data_pipelines.artefacts import names_in
from tests.training.test_checkpoints import newest_value, state_of
from tests.training.test_keeping import value
from tpo_jax.errors import InputError
from tpo_jax.training.checkpoints import (
    SAVED_FILE,
    Checkpoints,
    SaveConfig,
    best_step,
    read_params,
    saved_steps,
)
from tpo_jax.training.digests import DIGESTS_FILE, find_fault, stored_files, write_digests

COPIES = itertools.count()


@pytest.fixture(scope="module")
def saved(bucket: epath.Path) -> epath.Path:
    """A run of seven steps that saved after the second, fourth and sixth."""
    folder = bucket / "runs" / "mine" / "checkpoints"
    with Checkpoints(folder, config=SaveConfig(save_every=2), warn=pytest.fail) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, state_of(step), {})
    return folder


@pytest.fixture
def folder(saved: epath.Path, bucket: epath.Path) -> epath.Path:
    return copy(saved, bucket / f"copy_{next(COPIES)}")


def copy(source: epath.Path, target: epath.Path) -> epath.Path:
    for name in stored_files(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes((source / name).read_bytes())
    return target


def largest(folder: epath.Path) -> epath.Path:
    arrays = {name: file for name, file in stored_files(folder).items() if "default/" in name}
    return folder / max(arrays, key=lambda name: arrays[name].bytes)


def test_saved_restored_and_two_are_kept(folder: epath.Path) -> None:
    assert saved_steps(folder) == [6, 4] and names_in(folder) == {"step_6", "step_4"}
    warned: list[str] = []
    assert newest_value(folder, warned) == (6, 6.0) and warned == []
    np.testing.assert_array_equal(read_params(folder)["vision"]["kernel"], np.full(8, 6.0))


@pytest.mark.parametrize(
    "harm",
    [
        "flip",
        "no digests",
        pytest.param("cut", marks=pytest.mark.slow),
        pytest.param("delete", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_newest_is_named_and_set_aside(folder: epath.Path, harm: str) -> None:
    path = largest(folder / "step_6")
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        said = "has other bytes than were saved"
    elif harm == "cut":
        path.write_bytes(bytes(content[:-1]))
        said = f"bytes, {len(content):,} were saved"
    elif harm == "delete":
        path.unlink()
        said = "is missing"
    else:
        (folder / "step_6" / DIGESTS_FILE).unlink()
        said = f"{DIGESTS_FILE} is missing"
    with pytest.raises(InputError, match="UNFINISHED") as refused:
        read_params(folder)
    assert f"{folder}/step_6: damaged (" in str(refused.value)
    assert saved_steps(folder) == [6, 4], "who only reads must not rename"

    warned: list[str] = []
    assert newest_value(folder, warned) == (4, 4.0)
    (line,) = warned
    assert f"{folder}/step_6: damaged (" in line and said in line and "step_6.damaged" in line
    assert names_in(folder) == {"step_4", "step_6.damaged"}


def test_a_save_that_was_killed_is_left_out_and_done_again(folder: epath.Path) -> None:
    (folder / "step_6" / SAVED_FILE).unlink()  # the last file that a save writes
    (folder / "step_6" / "left").write_text("by the save that was killed")
    assert saved_steps(folder) == [4]
    warned: list[str] = []
    with Checkpoints(folder, config=SaveConfig(save_every=2), warn=warned.append) as checkpoints:
        assert checkpoints.latest == 4
        state = checkpoints.restore(state_of(0))
        assert float(np.max(jax.tree.leaves(state.params)[0])) == 4
        checkpoints.save(6, state_of(60), {})
    (line,) = warned
    assert f"{folder}/step_6: its save did not come to its end; left out" in line
    assert "step 4" in line
    assert "left" not in names_in(folder / "step_6") and find_fault(folder / "step_6") is None
    assert newest_value(folder, warned) == (6, 60.0) and len(warned) == 1


def test_what_is_kept(bucket: epath.Path) -> None:
    folder = bucket / "kept"
    config = SaveConfig(save_every=1, keep_last=1, keep_every=4, keep_best_by="loss")
    with Checkpoints(folder, config=config, warn=pytest.fail) as checkpoints:
        for step, loss in enumerate((0.5, 0.1, 0.3, 0.4, 0.2), start=1):
            checkpoints.save(step, state_of(step), {"loss": loss})
    assert saved_steps(folder) == [5, 4, 2] and best_step(folder) == 2
    assert names_in(folder) == {"step_5", "step_4", "step_2"}
    assert value(folder, 2) == 2


def test_digests_hold_for_a_copy_on_a_disk(folder: epath.Path, tmp_path: epath.Path) -> None:
    """A bucket tells MD5s; where nobody does, files are read for the same ones."""
    local = copy(folder / "step_6", epath.Path(tmp_path) / "step_6")
    assert find_fault(local) is None
    path = largest(local)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert str(find_fault(local)).endswith("has other bytes than were saved")
    path.write_bytes(content)

    write_digests(local)  # as a run on a disk does, and is copied into a bucket then
    assert "sha256" in (local / DIGESTS_FILE).read_text()
    back = copy(local, folder / "step_8")
    assert find_fault(back) is None
    path = largest(back)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert str(find_fault(back)).endswith("has other bytes than were saved")
