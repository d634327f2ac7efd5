"""The loop and a loss that is not finite: it stops, or goes on for a while, as it was told."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import MeshConfig, make_mesh
from tpo_jax.preference.losses import IPO
from tpo_jax.training.loop import METRICS_FILE, LoopConfig, read_metrics, train
from tpo_jax.training.step import TrainState, init_state

BAD = float("nan")


def step(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
    """Tells the number in the batch as its loss; no model."""
    loss = batch["tokens"][0, 0]
    seen = {"loss": loss, "dpo_loss": loss, "reward_margin": 0.0, "grad_norm": jnp.abs(loss)}
    return state, seen | {"skipped": 1.0 - jnp.isfinite(loss)}


def run(
    folder: Path, losses: list[float], *, at_reference: float | None = None, **more: Any
) -> None:
    def batches_from(start: int) -> Iterator[dict[str, np.ndarray]]:
        for loss in losses[start:]:
            yield {"tokens": np.full((1, 1), loss, np.float32)}

    folder.mkdir(exist_ok=True)
    train(
        init_state({"newline": np.zeros(4, np.float32)}, {}, optax.sgd(0.1)),
        step,
        batches_from,
        folder,
        config=LoopConfig(steps=len(losses), **more),
        mesh=make_mesh(MeshConfig(), devices=1),
        compute_dtype="float32",
        at_reference=at_reference,
        progress=lambda done, total, detail: None,
        warn=pytest.fail,
    )


def test_it_stops(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="step 2 the loss is nan.*learning_rate.*on_nonfinite"):
        run(tmp_path, [1.0, BAD, 2.0])
    assert [one["loss"] for one in read_metrics(tmp_path)] == [1.0]


def test_it_goes_on_where_it_is_to_skip(tmp_path: Path) -> None:
    run(tmp_path, [1.0, BAD, BAD, 2.0, BAD, BAD, 3.0], on_nonfinite="skip", max_skipped=2)
    metrics = read_metrics(tmp_path)
    assert [one["skipped"] for one in metrics] == [0, 1, 1, 0, 1, 1, 0]
    assert np.isnan(metrics[1]["loss"]) and metrics[3]["loss"] == 2.0
    text = (tmp_path / METRICS_FILE).read_text()
    assert "NaN" not in text  # which is no JSON
    assert json.loads(text.splitlines()[1])["loss"] is None


def test_it_stops_after_too_many_in_a_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="step 4.*3 in a row"):
        run(tmp_path, [1.0, BAD, BAD, BAD, 2.0], on_nonfinite="skip", max_skipped=2)


def test_the_reference_is_checked_at_the_first_step_that_counts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not made by this model"):
        run(tmp_path, [BAD, 5.0], on_nonfinite="skip", at_reference=1.0)


def test_the_loss_at_the_reference_is_that_of_the_loss_on_pairs(tmp_path: Path) -> None:
    run(tmp_path, [25.0, 3.0], at_reference=IPO(beta=0.1).at_reference)
    with pytest.raises(InputError, match=r"is 0\.69315 .*, not 25\.00000 and 0"):
        run(tmp_path / "other", [math.log(2), 3.0], at_reference=IPO(beta=0.1).at_reference)
