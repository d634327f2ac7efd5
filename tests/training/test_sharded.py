"""The sharded step: it equals that of one device on every axis, and leaves the state as it lay."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.quick_compile import QUICK
from tests.tiny import random_batch, tiny_model
from tpo_jax.models.video_lmm import Params, abstract_model
from tpo_jax.parallel.mesh import MeshConfig, make_mesh, place_batch
from tpo_jax.parallel.rules import param_shardings, path_of
from tpo_jax.preference.logprobs import Batch
from tpo_jax.preference.losses import Metrics, TPOLoss
from tpo_jax.training.loop import LoopConfig, init_sharded_state, train
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen
from tpo_jax.training.step import TrainState, init_state, make_train_step

AXES_ALONE = {
    "data": (MeshConfig(data=8, fsdp=1), 8),
    "fsdp": (MeshConfig(fsdp=8), 8),
    "context": (MeshConfig(fsdp=1, context=8), 8),
    "tensor": (MeshConfig(fsdp=1, tensor=4), 4),
}
PRODUCTS = {
    "data2_fsdp4": MeshConfig(data=2, fsdp=4),
    "data2_context4": MeshConfig(data=2, fsdp=1, context=4),
    "fsdp4_context2": MeshConfig(fsdp=4, context=2),
    "data2_fsdp2_context2": MeshConfig(data=2, fsdp=2, context=2),
    "fsdp4_tensor2": MeshConfig(fsdp=4, tensor=2),
    "data4_tensor2": MeshConfig(data=4, fsdp=1, tensor=2),
    "context2_tensor4": MeshConfig(fsdp=1, context=2, tensor=4),
    "fsdp2_context2_tensor2": MeshConfig(fsdp=2, context=2, tensor=2),
    "data2_context2_tensor2": MeshConfig(data=2, fsdp=1, context=2, tensor=2),
}
# Between them they cut along every axis.
QUICK_PRODUCTS = ("data2_fsdp4", "fsdp2_context2_tensor2")
# Plain descent, for Adam divides by the gradient's own size: digits lost in a sum would show as
# whole steps. Its state is the gradient.
DESCENT = optax.chain(optax.trace(decay=0.0), optax.scale(-1.0))
# A bias of all keys changes no score beside another: where nothing turns the keys (rope does), its
# gradient is zero, and what is found is rounding.
ZERO = "vision/layers/k/bias"
RELATIVE = 1e-5
ROWS, FRAMES = 8, 4
STEPS = 4


@cache
def inputs() -> tuple[Any, Params, dict[str, np.ndarray]]:
    """Heads that `tensor` divides; frames in chunks, so that no device takes all of its at once."""
    config, _, params = tiny_model(heads=8, kv_heads=4, remat="full")
    config = replace(config, vision=replace(config.vision, frames_per_chunk=3))
    graph, _ = abstract_model(config)
    batch = random_batch(config, 0, rows=ROWS, frames=FRAMES, prompt_targets=3)
    assert batch["tokens"].shape[1] % 8 == 0
    return graph, params, batch


def one_step(mesh: MeshConfig | None, devices: int | None = None) -> tuple[TrainState, Metrics]:
    """All parts are trained, so that the gradient of every parameter is compared."""
    graph, params, batch = inputs()
    loss = TPOLoss(beta=0.3, sft_weight=0.5)
    step = make_train_step(graph, loss, DESCENT, jnp.dtype("float32"))
    if mesh is None:
        done = quick(step)(init_state(params, {}, DESCENT), batch)
    else:
        found = make_mesh(mesh, devices)
        state = init_sharded_state(params, {}, DESCENT, found)
        with jax.set_mesh(found):
            compiled = quick(step, out_shardings=(param_shardings(found, state), None))
            done = compiled(state, place_batch(found, batch))
    return jax.device_get(done)


def quick(step: Any, **options: Any) -> Any:
    return jax.jit(step, compiler_options=QUICK, **options)


single = cache(lambda: one_step(None))


def flat(tree: Any) -> dict[str, Any]:
    return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_equals_single(mesh: MeshConfig, devices: int | None = None) -> None:
    (ours, metrics), (theirs, wanted) = one_step(mesh, devices), single()
    assert metrics.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(metrics[name], value, rtol=RELATIVE, atol=1e-6, err_msg=name)
    ours_grads, grads = (flat(state.opt_state[0].trace) for state in (ours, theirs))
    assert ours_grads.keys() == grads.keys() == flat(inputs()[1]).keys()
    for path, grad in grads.items():
        if path == ZERO:
            grad, largest = np.zeros_like(grad), np.max(np.abs(grads[ZERO.replace("k", "q")]))
        else:
            largest = np.max(np.abs(grad))
        assert np.max(np.abs(ours_grads[path] - grad)) <= RELATIVE * largest, path
        # The update is exact up to the rounding of the parameter itself.
        after = flat(inputs()[1])[path] - ours_grads[path]
        np.testing.assert_allclose(flat(ours.trained)[path], after, rtol=3e-7, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("axis", AXES_ALONE)
def test_an_axis_alone_equals_one_device(axis: str) -> None:
    assert_equals_single(*AXES_ALONE[axis])


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param(mesh, id=name, marks=[] if name in QUICK_PRODUCTS else pytest.mark.slow)
        for name, mesh in PRODUCTS.items()
    ],
)
def test_a_product_equals_one_device(mesh: MeshConfig) -> None:
    assert_equals_single(mesh)


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param(MeshConfig(fsdp=8), id="fsdp", marks=pytest.mark.slow),
        pytest.param(MeshConfig(fsdp=2, context=2, tensor=2), id="fsdp2_context2_tensor2"),
    ],
)
def test_no_moment_is_whole_on_a_device_unless_its_parameter_is(mesh: MeshConfig) -> None:
    _, params, _ = inputs()
    found = make_mesh(mesh)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), STEPS)
    state = init_sharded_state(*split_frozen(params, ("vision",)), optimizer, found)
    placed = flat(state.trained)
    moments = [flat(moment) for moment in adam_moments(state)]
    assert len(moments) == 2
    for moment in moments:
        assert moment.keys() == placed.keys()
        for path, leaf in moment.items():
            assert leaf.sharding == placed[path].sharding, path
            wanted = leaf.sharding.shard_shape(leaf.shape)
            assert all(shard.data.shape == wanted for shard in leaf.addressable_shards), path
            if path.endswith(("kernel", "embedding")):
                assert leaf.size == 8 * np.prod(wanted), path
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.mesh == found  # counters too


def test_moments_are_made_in_their_shards() -> None:
    """The optimizer is asked inside a jitted function only; else one device would be filled."""
    _, params, _ = inputs()
    seen = []

    def watched(trained: Params) -> optax.OptState:
        seen.extend(jax.tree.leaves(trained))
        return DESCENT.init(trained)

    init_sharded_state(params, {}, DESCENT._replace(init=watched), make_mesh(MeshConfig(fsdp=8)))
    assert seen and all(isinstance(leaf, jax.core.Tracer) for leaf in seen)


def adam_moments(state: TrainState) -> list[Params]:
    return [optax.tree.get(state.opt_state, name) for name in ("mu", "nu")]


@pytest.mark.usefixtures("quick_training")
def test_the_state_comes_out_as_it_went_in_and_a_bucket_compiles_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch in which rows of two shapes alternate."""
    monkeypatch.setattr(jax, "jit", partial(jax.jit, compiler_options=QUICK))
    config, graph, params = tiny_model(layers=1)
    found = make_mesh(MeshConfig(fsdp=2, context=2), devices=4)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), STEPS)
    step = make_train_step(graph, TPOLoss(dpo_weight=0.0), optimizer, jnp.dtype("float32"))

    def counted(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return step(state, batch)

    def batches_from(start: int) -> Iterator[dict[str, np.ndarray]]:
        for number in range(start, STEPS):
            yield random_batch(config, number, rows=4, frames=2 + 2 * (number % 2))

    before = init_sharded_state(*split_frozen(params, ("vision",)), optimizer, found)
    wanted = {path: leaf.sharding for path, leaf in flat(vars(before)).items()}
    with jax.log_compiles():
        after = train(
            before,
            counted,
            batches_from,
            tmp_path,
            config=LoopConfig(steps=STEPS, save_every=STEPS),
            mesh=found,
            compute_dtype="float32",
            at_reference=None,
            progress=lambda done, total, detail: None,
            warn=pytest.fail,
        )
    for path, leaf in flat(vars(after)).items():
        assert leaf.sharding.is_equivalent_to(wanted[path], leaf.ndim), path
    for moment in adam_moments(after):
        for path, leaf in flat(moment).items():
            assert leaf.sharding == flat(after.trained)[path].sharding, path
    assert len([r for r in caplog.messages if r.startswith("Compiling jit(counted)")]) == 2
