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
from tpo_jax.training.loop import LoopConfig, train
from tpo_jax.training.run_log import BAD_BATCHES_FILE, METRICS_FILE, read_metrics
from tpo_jax.training.step import TrainState, init_state

BAD = float("nan")
TOO_MUCH = 40.0


def step(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
    """Tells the number in the batch as its loss, and as its gradient's norm; no model."""
    loss = batch["tokens"][0, 0]
    seen = {"loss": loss, "dpo_loss": loss, "reward_margin": 0.0, "grad_norm": jnp.abs(loss)}
    return state, seen | {"skipped": 1.0 - (jnp.isfinite(loss) & (loss < TOO_MUCH))}


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
        pair_ids=lambda number: [f"pair_{number}_{place}" for place in range(5)],
        mesh=make_mesh(MeshConfig(), devices=1),
        compute_dtype="float32",
        at_reference=at_reference,
        progress=lambda done, total, detail: None,
        warn=pytest.fail,
    )


def bad_batches(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / BAD_BATCHES_FILE).read_text().splitlines()]


def test_it_stops(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="step 2 the loss is nan.*learning_rate.*on_nonfinite"
    ) as e:
        run(tmp_path, [1.0, BAD, 2.0])
    named = "pairs pair_1_0, pair_1_1, pair_1_2, pair_1_3, ...;"
    assert named in str(e.value) and "--debug-batch=2" in str(e.value)
    assert [one["loss"] for one in read_metrics(tmp_path)] == [1.0]
    assert [one["step"] for one in bad_batches(tmp_path)] == [2]


def test_it_goes_on_where_it_is_to_skip(tmp_path: Path) -> None:
    run(tmp_path, [1.0, BAD, BAD, 2.0, BAD, BAD, 3.0], on_nonfinite="skip", max_skipped=2)
    metrics = read_metrics(tmp_path)
    assert [one["skipped"] for one in metrics] == [0, 1, 1, 0, 1, 1, 0]
    assert np.isnan(metrics[1]["loss"]) and metrics[3]["loss"] == 2.0
    text = (tmp_path / METRICS_FILE).read_text()
    assert "NaN" not in text  # which is no JSON
    assert json.loads(text.splitlines()[1])["loss"] is None
    assert [one["step"] for one in bad_batches(tmp_path)] == [2, 3, 5, 6]
    ids = [f"pair_1_{place}" for place in range(5)]
    assert bad_batches(tmp_path)[0] == {"step": 2, "pairs": ids, "loss": None, "grad_norm": None}


def test_the_pairs_of_a_bad_batch_are_named(tmp_path: Path) -> None:
    named = "on pairs pair_1_0, pair_1_1, pair_1_2, pair_1_3, ...; .* --debug-batch=2"
    with pytest.raises(InputError, match=named):
        run(tmp_path, [1.0, BAD])


def test_a_run_without_bad_batches_has_no_such_file(tmp_path: Path) -> None:
    run(tmp_path, [1.0, 2.0])
    assert not (tmp_path / BAD_BATCHES_FILE).exists()


def test_bad_batches_that_come_again_are_written_once(tmp_path: Path) -> None:
    for _ in range(2):  # there is no checkpoint: the second run begins at the first step
        with pytest.raises(InputError, match=r"step 4 \(2 in a row\)"):
            run(tmp_path, [BAD, 2.0, BAD, BAD], on_nonfinite="skip", max_skipped=1)
    assert [one["step"] for one in bad_batches(tmp_path)] == [1, 3, 4]


def test_an_exploding_gradient_is_named_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="step 2 the gradient's norm is 50, above .*limit=10 on"):
        run(tmp_path, [1.0, 50.0], grad_norm_limit=10.0)
    assert bad_batches(tmp_path)[0]["grad_norm"] == 50.0
    with pytest.raises(ValueError, match="grad_norm_limit is -1"):
        LoopConfig(steps=1, grad_norm_limit=-1.0)


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
