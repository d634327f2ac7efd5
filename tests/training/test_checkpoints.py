"""A damaged checkpoint is named and set aside, and the one before it is used."""

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tpo_jax.errors import InputError
from tpo_jax.training.checkpoints import (
    Checkpoints,
    SaveConfig,
    read_params,
    saved_steps,
    set_damaged_aside,
)
from tpo_jax.training.digests import DIGESTS_FILE, find_fault, write_digests
from tpo_jax.training.step import TrainState, init_state

Damage = Callable[[Path], None]


def state_of(value: float) -> TrainState:
    trained = {"projector": {"kernel": jnp.full((64, 64), value)}}
    frozen = {"vision": {"kernel": jnp.full((8,), value)}}
    return init_state(trained, frozen, optax.identity())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seven steps that saved after the second, fourth and sixth."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, config=SaveConfig(save_every=2), warn=pytest.fail) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, state_of(step), {})
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoints")


def newest_value(folder: Path, warned: list[str]) -> tuple[int | None, float]:
    with Checkpoints(folder, config=SaveConfig(save_every=2), warn=warned.append) as checkpoints:
        state = checkpoints.restore(state_of(0))
        return checkpoints.latest, float(np.max(jax.tree.leaves(state.params)[0]))


def largest_file(folder: Path) -> Path:
    arrays = (path for path in (folder / "default").rglob("*") if path.is_file())
    return max(arrays, key=lambda path: path.stat().st_size)


def flip_a_bit(folder: Path) -> None:
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[:-1])


def delete_a_file(folder: Path) -> None:
    largest_file(folder).unlink()


def delete_digests(folder: Path) -> None:
    (folder / DIGESTS_FILE).unlink()


def garble_digests(folder: Path) -> None:
    (folder / DIGESTS_FILE).write_text('{"files": 3}')


def test_whole_checkpoints_are_restored_and_two_are_kept(folder: Path) -> None:
    assert saved_steps(folder) == [6, 4]
    warned: list[str] = []
    assert newest_value(folder, warned) == (6, 6.0)
    assert warned == []
    np.testing.assert_array_equal(read_params(folder)["vision"]["kernel"], np.full(8, 6.0))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_bit, "has other bytes than were saved"),
        (truncate, "bytes, "),
        (delete_a_file, "is missing"),
        (delete_digests, f"{DIGESTS_FILE} is missing"),
        (garble_digests, f"{DIGESTS_FILE} cannot be read"),
    ],
)
def test_a_damaged_newest_is_named_and_set_aside(folder: Path, damage: Damage, said: str) -> None:
    damage(folder / "step_6")
    with pytest.raises(InputError, match="tpo train") as refused:
        read_params(folder)
    assert f"{folder / 'step_6'}: damaged (" in str(refused.value)
    assert saved_steps(folder) == [6, 4], "who only reads must not rename"

    warned: list[str] = []
    set_damaged_aside(folder, warned.append)
    assert saved_steps(folder) == [4]
    (line,) = warned
    assert "step_6: damaged (" in line and said in line and "step_6.damaged" in line
    assert (folder / "step_6.damaged").is_dir()


@pytest.mark.parametrize("rows", [48, 80])
def test_another_mesh_wants_more_or_fewer_rows(folder: Path, rows: int) -> None:
    trained = {"projector": {"kernel": jnp.ones((rows, 64))}}
    like = init_state(trained, {"vision": {"kernel": jnp.ones(8)}}, optax.identity())
    with Checkpoints(folder, config=SaveConfig(save_every=2), warn=pytest.fail) as checkpoints:
        kernel = np.asarray(checkpoints.restore(like).params["projector"]["kernel"])
    expected = np.zeros((rows, 64))
    expected[:64] = 6.0
    np.testing.assert_array_equal(kernel, expected)


def test_after_damage_the_same_step_is_saved_again(folder: Path) -> None:
    flip_a_bit(folder / "step_6")
    left = folder / "step_6.orbax-checkpoint-tmp" / "default"  # by a save that was killed
    left.mkdir(parents=True)
    (left / "part").touch()
    warned: list[str] = []
    with Checkpoints(folder, config=SaveConfig(save_every=2), warn=warned.append) as checkpoints:
        assert checkpoints.latest == 4
        state = checkpoints.restore(state_of(0))
        assert float(np.max(jax.tree.leaves(state.params)[0])) == 4
        checkpoints.save(6, state_of(60), {})
    assert len(warned) == 1
    assert not (folder / "step_6" / "default" / "part").exists()
    assert find_fault(folder / "step_6") is None
    flip_a_bit(folder / "step_6")
    assert newest_value(folder, warned) == (4, 4.0)
    assert (folder / "step_6.2.damaged").is_dir()


def test_nothing_is_thrown_away_when_none_is_whole(folder: Path) -> None:
    flip_a_bit(folder / "step_4")
    flip_a_bit(folder / "step_6")
    with pytest.raises(InputError, match="no other checkpoint is whole; delete"):
        Checkpoints(folder, config=SaveConfig(save_every=2))
    assert saved_steps(folder) == [6, 4]


def test_checkpoints_of_a_version_without_digests_are_read(folder: Path) -> None:
    for step in saved_steps(folder):
        delete_digests(folder / f"step_{step}")
    warned: list[str] = []
    assert newest_value(folder, warned) == (6, 6.0)
    assert warned == []


def test_every_single_flip_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "d").mkdir()
    path = tmp_path / "d" / "bytes"
    whole = rng.bytes(300_000)
    path.write_bytes(whole)
    (tmp_path / "empty").touch()
    write_digests(tmp_path)
    assert find_fault(tmp_path) is None
    for place in (0, *rng.integers(0, len(whole), 10), len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        assert find_fault(tmp_path) == "d/bytes has other bytes than were saved"
