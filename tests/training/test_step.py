"""The step: what it changes, what it leaves, and what it counts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.quick_compile import QUICK
from tests.tiny import random_batch, tiny_model
from tpo_jax.attention import PAD_BRANCH
from tpo_jax.models.remat import Remat
from tpo_jax.preference.losses import Loss, TPOLoss
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen
from tpo_jax.training.step import TrainState, init_state, make_train_step

# Adam divides by the gradient's own size, so that digits lost in a sum would show as whole steps.
DESCENT = optax.sgd(0.1)
LOSS = TPOLoss(beta=0.3, sft_weight=0.5)


def one_step(remat: Remat = "none") -> tuple[TrainState, dict]:
    config, graph, params = tiny_model(remat=remat)
    batch = random_batch(config, 0, rows=8)
    step = make_train_step(graph, LOSS, DESCENT, jnp.dtype("float32"))
    state = init_state(*split_frozen(params, ("vision",)), DESCENT)
    return jax.block_until_ready(jax.jit(step, compiler_options=QUICK)(state, batch))


usual_step = cache(one_step)


def assert_same_parameters(found: TrainState, expected: TrainState) -> None:
    for ours, theirs in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("remat", ["full", "attention", "offload"])
def test_what_is_kept_changes_nothing(remat: Remat) -> None:
    assert_same_parameters(one_step(remat=remat)[0], usual_step()[0])


def test_the_mlp_in_chunks_of_columns_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = usual_step()
    monkeypatch.setattr("tpo_jax.models.language.MLP_COLUMNS", 16)
    monkeypatch.setattr("tpo_jax.models.language.MLP_TOKENS", 1)
    asked = Mock(return_value=3)
    monkeypatch.setattr("tpo_jax.models.language.count_chunks", asked)
    assert_same_parameters(one_step()[0], whole)
    asked.assert_called_with(48, 16)


def test_frozen_parts_stay_and_all_others_move() -> None:
    _, _, before = tiny_model()
    after, _ = usual_step()
    same = jax.tree.map(np.array_equal, dict(before), after.params)
    assert all(jax.tree.leaves(same["vision"]))
    for part in ("projector", "language", "newline"):
        assert not any(jax.tree.leaves(same[part])), part


# ---------------------------------------------------------------------------- what is not finite


@dataclass(frozen=True, kw_only=True)
class BrokenGradient:
    """A finite loss with a gradient that is not, for batches whose first reference is negative."""

    needs_reference: bool = True

    def weight(self, mask: jax.Array) -> jax.Array:
        return jnp.sum(mask)

    def __call__(
        self, policy: jax.Array, mask: jax.Array, reference: jax.Array, total_weight: object = None
    ) -> tuple[jax.Array, dict]:
        # The root has no slope at 0: infinity times 0 goes back from there, and 0 from 1.
        broken = jnp.sqrt(jnp.where(reference[0, 0, 0] < 0, 0.0, 1.0) + 0 * jnp.sum(policy))
        value = -jnp.mean(policy) + broken
        return value, {"loss": value}


def with_reference(batch: dict, value: float) -> dict:
    reference = batch["reference_logprobs"].copy()
    reference[0, 0, 0] = value
    return batch | {"reference_logprobs": reference}


@pytest.mark.parametrize(
    ("loss", "bad", "good"),
    [
        pytest.param(LOSS, np.nan, -1.0, id="nan"),
        pytest.param(LOSS, -np.inf, -1.0, id="infinite", marks=pytest.mark.slow),
        pytest.param(BrokenGradient(), -1.0, 1.0, id="gradient"),
    ],
)
def test_a_step_that_is_not_finite_changes_nothing(loss: Loss, bad: float, good: float) -> None:
    config, graph, params = tiny_model()
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_ratio=0.5), 10)
    step = jax.jit(
        make_train_step(graph, loss, optimizer, jnp.dtype("float32")), compiler_options=QUICK
    )
    batches = [random_batch(config, seed, rows=2) for seed in range(3)]
    state = init_state(*split_frozen(params, ("vision",)), optimizer)
    for batch in batches[:2]:  # moments are not zero any more, and the rate is not
        state, metrics = step(state, with_reference(batch, good))
        assert metrics["skipped"] == 0

    after, metrics = step(state, with_reference(batches[2], bad))
    assert metrics["skipped"] == 1
    assert not np.isfinite(metrics["loss"] + metrics["grad_norm"])
    assert after.step == 3
    assert_equal((after.params, after.opt_state), (state.params, state.opt_state))

    ours, metrics = step(after, with_reference(batches[2], good))
    expected, _ = step(state, with_reference(batches[2], good))
    assert metrics["skipped"] == 0
    assert metrics["learning_rate"] == pytest.approx(1e-3 * 2 / 5)
    assert_equal((ours.params, ours.opt_state), (expected.params, expected.opt_state))
    assert not np.array_equal(ours.trained["newline"], state.trained["newline"])


def test_a_step_above_the_limit_changes_nothing() -> None:
    config, graph, params = tiny_model()
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_ratio=0.5), 10)
    batches = [random_batch(config, seed, rows=2) for seed in range(2)]

    @cache
    def step_with(limit: float) -> Callable[..., tuple[TrainState, dict]]:
        dtype = jnp.dtype("float32")
        step = make_train_step(graph, LOSS, optimizer, dtype, grad_norm_limit=limit)
        return jax.jit(step, compiler_options=QUICK)

    start = init_state(*split_frozen(params, ("vision",)), optimizer)
    state, _ = step_with(0.0)(start, batches[0])
    norms = [float(step_with(0.0)(state, batch)[1]["grad_norm"]) for batch in batches]
    below, above = (batches[number] for number in np.argsort(norms))
    limited = step_with(sum(norms) / 2)

    after, metrics = limited(state, above)
    assert metrics["skipped"] == 1 and np.isfinite(metrics["loss"])
    assert metrics["grad_norm"] == pytest.approx(max(norms), rel=1e-5)
    assert_equal((after.params, after.opt_state), (state.params, state.opt_state))
    assert after.step == 2
    ours, metrics = limited(after, below)
    assert metrics["skipped"] == 0
    assert_same_parameters(ours, step_with(0.0)(state, below)[0])


def assert_equal(ours: object, theirs: object) -> None:
    for found, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_metrics_count_tokens_and_padding() -> None:
    config, _, _ = tiny_model()
    batch = random_batch(config, 0, rows=8)
    _, metrics = usual_step()
    padding = np.sum(batch["branch"] == PAD_BRANCH)
    assert 0 < padding < batch["branch"].size
    assert metrics["padding_share"] == pytest.approx(padding / batch["branch"].size)
    assert metrics["tokens"] == pytest.approx(batch["branch"].size - padding)
    assert "learning_rate" not in metrics  # plain descent has no schedule
