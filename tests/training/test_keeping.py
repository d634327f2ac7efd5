"""Which checkpoints are kept, which is the best, and that damage is still noticed."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.test_checkpoints import flip_a_bit, state_of
from tpo_jax.cli.config import load_config
from tpo_jax.cli.settings import read_settings
from tpo_jax.errors import InputError
from tpo_jax.training.checkpoints import (
    METRICS_FILE,
    Checkpoints,
    SaveConfig,
    best_step,
    saved_steps,
    set_damaged_aside,
    step_folder,
    stored_params,
)

# By step: the best by accuracy is 2, the lowest loss is of step 3.
ACCURACY = [0.2, 0.9, 0.5, math.nan, 0.5, 0.6, 0.6, 0.5]
LOSS = [0.7, 0.5, 0.1, math.nan, 0.2, 0.3, 0.4, 0.4]


def save_all(folder: Path, config: SaveConfig, first: int = 1) -> None:
    with Checkpoints(folder, config=config, warn=pytest.fail) as checkpoints:
        for step in range(first, len(ACCURACY) + 1):
            metrics = {"reward_accuracy": ACCURACY[step - 1], "loss": LOSS[step - 1]}
            checkpoints.save(step, state_of(step), metrics)


def value(folder: Path, step: int | None) -> float:
    return float(np.asarray(jax.tree.leaves(stored_params(folder, step))[0]).max())


@pytest.mark.parametrize(
    ("config", "kept", "best"),
    [
        (SaveConfig(save_every=1, keep_last=3), [8, 7, 6], None),
        (SaveConfig(save_every=1, keep_last=1, keep_every=3), [8, 6, 3], None),
        (SaveConfig(save_every=1, keep_best_by="reward_accuracy"), [8, 7, 2], 2),
        (SaveConfig(save_every=1, keep_last=1, keep_every=4, keep_best_by="loss"), [8, 4, 3], 3),
    ],
)
def test_what_is_kept(
    config: SaveConfig, kept: list[int], best: int | None, tmp_path: Path
) -> None:
    save_all(tmp_path, config)
    assert saved_steps(tmp_path) == kept
    assert [value(tmp_path, step) for step in kept] == kept and value(tmp_path, None) == 8
    if best is None:
        with pytest.raises(InputError, match="config.train.keep_best_by"):
            best_step(tmp_path)
    else:
        assert best_step(tmp_path) == best
    with pytest.raises(InputError, match=f"no checkpoint of step 5; there are: .*{kept[0]}"):
        stored_params(tmp_path, 5)


def test_the_best_stays_the_best_when_the_run_is_started_again(tmp_path: Path) -> None:
    config = SaveConfig(save_every=1, keep_last=1, keep_best_by="reward_accuracy")
    with Checkpoints(tmp_path, config=config) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state_of(step), {"reward_accuracy": ACCURACY[step - 1]})
    save_all(tmp_path, config, first=4)
    assert saved_steps(tmp_path) == [8, 2] and best_step(tmp_path) == 2


def test_another_field_begins_anew(tmp_path: Path) -> None:
    for steps, name in (((1, 2), "reward_accuracy"), ((3, 4), "reward_margin")):
        config = SaveConfig(save_every=1, keep_last=1, keep_best_by=name)
        with Checkpoints(tmp_path, config=config) as checkpoints:
            for step in steps:
                checkpoints.save(step, state_of(step), {name: -float(step)})
    assert saved_steps(tmp_path) == [4, 3] and best_step(tmp_path) == 3


@pytest.mark.parametrize("damaged", [2, 8])
def test_damage_is_noticed_in_whichever_is_read(damaged: int, tmp_path: Path) -> None:
    config = SaveConfig(save_every=1, keep_last=2, keep_best_by="reward_accuracy")
    save_all(tmp_path, config)
    flip_a_bit(step_folder(tmp_path, damaged))
    with pytest.raises(InputError, match=f"step_{damaged}: damaged"):
        stored_params(tmp_path, damaged)
    assert value(tmp_path, 7) == 7
    warned: list[str] = []
    with Checkpoints(tmp_path, config=config, warn=warned.append) as checkpoints:
        assert checkpoints.latest == (7 if damaged == 8 else 8)
    assert len(warned) == (damaged == 8), "older ones are looked at when they are read"


def test_metrics_that_cannot_be_read_are_damage(tmp_path: Path) -> None:
    config = SaveConfig(save_every=1, keep_last=2, keep_best_by="reward_accuracy")
    save_all(tmp_path, config)
    (step_folder(tmp_path, 2) / METRICS_FILE).write_text("{")
    warned: list[str] = []
    set_damaged_aside(tmp_path, warned.append)
    assert len(warned) == 1 and "step_2: damaged (" in warned[0]
    assert saved_steps(tmp_path) == [8, 7] and best_step(tmp_path) == 7


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    config = SaveConfig(save_every=1, keep_best_by="reward_acuracy")
    with (
        pytest.raises(InputError, match="keep_best_by=reward_acuracy.*mean reward_accuracy"),
        Checkpoints(tmp_path, config=config) as checkpoints,
    ):
        checkpoints.save(1, state_of(1), {"reward_accuracy": 1.0, "loss": 1.0})
    train = "--config.train."
    for options, said in (
        ([f"{train}save_every=20", f"{train}keep_every=30"], "a multiple of save_every=20"),
        ([f"{train}keep_last=0"], "it must be 1 or more"),
    ):
        with pytest.raises(InputError, match=said):
            read_settings(load_config("demo", options))
    kept = read_settings(
        load_config("demo", [f"{train}keep_every=40", f"{train}keep_best_by=loss"])
    )
    assert (kept.train.keep_every, kept.train.keep_best_by) == (40, "loss")
