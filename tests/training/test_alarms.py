"""The alarm on chosen answers that become less likely."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tpo_jax.parallel.mesh import MeshConfig, make_mesh
from tpo_jax.training.alarms import WINDOW, likelihood_alarm
from tpo_jax.training.loop import LoopConfig, train
from tpo_jax.training.step import TrainState, init_state

STEPS = 60


def history(chosen: float, rejected: float, noise: float = 0.05, seed: int = 0) -> list[dict]:
    """Rewards that move by so much a step, with the noise of batches that differ."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(STEPS):
        one, other = np.array([chosen, rejected]) * step + rng.normal(0, noise, 2)
        rows.append({"reward_chosen": one, "reward_rejected": other, "reward_margin": one - other})
    return rows


def test_both_fall_and_the_margin_grows() -> None:
    said = likelihood_alarm(history(chosen=-0.02, rejected=-0.05))
    assert said is not None
    assert said.startswith("chosen answers become less likely") and "\n" not in said
    assert "their reward is -0.9" in said and "config.loss.sft_weight" in said


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (0.02, -0.02),  # as it should be
        (0.02, 0.01),  # both gain
        (-0.05, -0.02),  # the margin shrinks: another trouble, and seen in the margin
        (0.0, -0.05),  # only the rejected one falls
        (0.0, 0.0),
    ],
)
def test_nothing_else_sets_it_off(chosen: float, rejected: float) -> None:
    for seed in range(20):
        assert likelihood_alarm(history(chosen, rejected, seed=seed)) is None


def test_chosen_answers_still_above_the_reference_do_not_set_it_off() -> None:
    rows = [
        row | {"reward_chosen": row["reward_chosen"] + 5.0}
        for row in history(chosen=-0.02, rejected=-0.05)
    ]
    assert likelihood_alarm(rows) is None


def test_it_waits_for_two_windows() -> None:
    rows = history(chosen=-0.02, rejected=-0.05)
    assert likelihood_alarm([]) is None
    assert likelihood_alarm(rows[:39]) is None
    assert likelihood_alarm(rows[:40]) is not None
    quiet = history(chosen=-0.02, rejected=-0.05, noise=0.001)
    assert likelihood_alarm(quiet[:9], window=5) is None
    assert likelihood_alarm(quiet[:10], window=5) is not None


def test_it_looks_at_the_newest_steps_only() -> None:
    fell = history(chosen=-0.02, rejected=-0.05)
    assert likelihood_alarm(fell + [fell[-1]] * 40) is None


def test_a_run_without_rewards_has_none() -> None:
    assert likelihood_alarm([{"loss": 1.0, "sft_loss": 1.0}] * STEPS) is None


# ----------------------------------------------------------------------------------- in a run


def warnings_of(folder: Path, rows: list[dict], stop_after: int | None = None) -> list[str]:
    """What a run with these metrics is warned of; there is no model."""
    said: list[str] = []

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
        names = ("reward_chosen", "reward_rejected", "reward_margin")
        seen = {name: batch["tokens"][0, place] for place, name in enumerate(names)}
        return state, seen | {"loss": jnp.ones(()), "skipped": jnp.zeros(())}

    def batches_from(start: int) -> Iterator[dict[str, np.ndarray]]:
        for row in rows[start:]:
            yield {"tokens": np.array([list(row.values())], np.float32)}

    def progress(done: int, total: int, detail: str) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    train(
        init_state({"newline": np.zeros(4, np.float32)}, {}, optax.sgd(0.1)),
        step,
        batches_from,
        folder,
        config=LoopConfig(steps=len(rows), save_every=10),
        mesh=make_mesh(MeshConfig(), devices=1),
        compute_dtype="float32",
        at_reference=None,
        progress=progress,
        warn=said.append,
    )
    return said


def test_a_run_is_warned_once_a_window(tmp_path: Path) -> None:
    said = warnings_of(tmp_path, history(chosen=-0.02, rejected=-0.05, noise=0.001))
    assert [text.split(":")[0] for text in said] == [f"step {2 * WINDOW}", f"step {3 * WINDOW}"]
    assert "chosen answers become less likely" in said[0]


def test_a_resumed_run_remembers(tmp_path: Path) -> None:
    rows = history(chosen=-0.02, rejected=-0.05, noise=0.001)
    with pytest.raises(KeyboardInterrupt):
        warnings_of(tmp_path, rows, stop_after=35)
    assert [text.split(":")[0] for text in warnings_of(tmp_path, rows)] == ["step 50"]
