"""The window of steps that are profiled, and what its trace holds."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from tpo_jax.training.profile import STEP_ANNOTATION, Profile, ProfileConfig


def profiled_steps(folder: Path) -> list[int]:
    """The numbers of the steps that the only trace of a folder holds."""
    (path,) = folder.glob("plugins/profile/*/*.xplane.pb")
    events = (
        event
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes
        for line in plane.lines
        for event in line.events
        if event.name == STEP_ANNOTATION
    )
    return sorted(int(str(dict(event.stats)["step_num"])) for event in events)


def run(folder: Path, steps: str, *, first: int = 1, total: int = 5) -> None:
    with Profile(folder, ProfileConfig(steps=steps)) as profile:
        for number in range(first, total + 1):
            with profile.step(number):
                jax.block_until_ready(jnp.ones(4) + number)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [("2:3", [2, 3]), ("5:5", [5]), pytest.param("4:9", [4, 5], id="ends inside")],
)
def test_the_steps_of_the_window_are_in_the_trace(
    tmp_path: Path, steps: str, expected: list[int]
) -> None:
    run(tmp_path, steps)
    assert profiled_steps(tmp_path) == expected


def test_a_run_that_fails_inside_the_window_leaves_its_trace(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Profile(tmp_path, ProfileConfig(steps="1:2")) as profile:
        with profile.step(1):
            jax.block_until_ready(jnp.ones(4) + 1)
        raise KeyError
    assert profiled_steps(tmp_path) == [1]


def test_no_window_and_one_that_was_before_trace_nothing(tmp_path: Path) -> None:
    run(tmp_path, "")
    run(tmp_path, "2:3", first=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", ["10", "0:3", "5:4", "a:b", "1:2:3", "-1:2"])
def test_what_is_no_window_is_refused(steps: str) -> None:
    with pytest.raises(ValueError, match="as in 10:13"):
        ProfileConfig(steps=steps)
