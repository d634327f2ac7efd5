"""The step: what it changes, and that sharding it changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import random_batch, tiny_model
from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh
from tpo_jax.parallel.rules import param_shardings
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen
from tpo_jax.training.step import TrainState, init_state, make_train_step

# Adam divides by the gradient's own size, so that digits lost in a sum would show as whole steps.
SGD = optax.sgd(0.1)
LOSS = TPOLoss(beta=0.3, sft_weight=0.5)


def one_step(mesh: MeshConfig | None, remat: bool = False) -> tuple[TrainState, dict]:
    config, graph, params = tiny_model(remat=remat)
    batch = random_batch(config, 0, rows=8)
    step = jax.jit(make_train_step(graph, LOSS, SGD, jnp.dtype("float32")))
    if mesh is not None:
        devices = make_mesh(mesh)
        params = jax.device_put(params, param_shardings(devices, params))
        batch = jax.device_put(batch, batch_sharding(devices))
    state, metrics = step(init_state(*split_frozen(params, ("vision",)), SGD), batch)
    return jax.block_until_ready(state), metrics


@pytest.mark.parametrize(
    "mesh",
    [MeshConfig(data=8, fsdp=1), MeshConfig(fsdp=8), MeshConfig(data=2, fsdp=2, tensor=2)],
    ids=["data", "fsdp", "product"],
)
def test_sharded_equals_single_device(mesh: MeshConfig) -> None:
    single, single_metrics = one_step(None)
    sharded, metrics = one_step(mesh)
    for name, value in single_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
    for ours, theirs in zip(
        jax.tree.leaves(sharded.params), jax.tree.leaves(single.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)


def test_remat_changes_nothing() -> None:
    plain, _ = one_step(None)
    again, _ = one_step(None, remat=True)
    for ours, theirs in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(plain.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_frozen_parts_stay_and_all_others_move() -> None:
    _, _, before = tiny_model()
    after, _ = one_step(None)
    same = jax.tree.map(np.array_equal, dict(before), after.params)
    assert all(jax.tree.leaves(same["vision"]))
    for part in ("projector", "language", "newline"):
        assert not any(jax.tree.leaves(same[part])), part


def test_an_update_at_the_papers_rate_is_not_lost() -> None:
    """At 3e-7 a bf16 weight would round back to where it was; fp32 masters move."""
    config, graph, params = tiny_model()
    recipe = OptimizerConfig(learning_rate=3e-7, warmup_ratio=0.0)
    optimizer = make_optimizer(recipe, 100)
    step = jax.jit(make_train_step(graph, LOSS, optimizer, jnp.dtype("bfloat16")))
    state = init_state(*split_frozen(params, ("vision",)), optimizer)
    for seed in range(3):  # the first step of the warm-up has rate 0
        state, _ = step(state, random_batch(config, seed, rows=2))
    kernel = np.asarray(state.params["language"]["layers"]["q"]["kernel"])
    before = np.asarray(params["language"]["layers"]["q"]["kernel"])
    assert kernel.dtype == np.float32
    assert np.mean(kernel != before) > 0.99


def test_freezing_an_unknown_part_is_refused() -> None:
    _, _, params = tiny_model()
    with pytest.raises(InputError, match="visoin"):
        split_frozen(params, ("visoin",))
