"""Updates at the paper's rate: fp32 masters add them up, bf16 masters would lose them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.jaxpr_arrays import every_equation
from tests.quick_compile import QUICK
from tests.tiny import random_batch, tiny_model
from tpo_jax.models.video_lmm import Params
from tpo_jax.parallel.mesh import MeshConfig, make_mesh, place_batch
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.preference.reference import make_reference_step
from tpo_jax.training.loop import FIRST_STEP_TOLERANCE, init_sharded_state
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule, split_frozen
from tpo_jax.training.step import TrainState, cast, init_state, make_train_step

RECIPE = OptimizerConfig(learning_rate=3e-7, warmup_ratio=0.1)
STEPS = 20


def kernel(params: Params) -> np.ndarray:
    return np.asarray(params["language"]["layers"]["q"]["kernel"], np.float64)


def test_what_lies_between_is_in_the_compute_dtype() -> None:
    """Every product of the model reads bf16, forward and backward, whatever it sums in."""
    config, graph, params = tiny_model()
    optimizer = make_optimizer(RECIPE, STEPS)
    step = make_train_step(graph, TPOLoss(), optimizer, jnp.dtype("bfloat16"))
    state = init_state(*split_frozen(params, RECIPE.frozen), optimizer)
    jaxpr = jax.make_jaxpr(step)(state, random_batch(config, 0, rows=2))
    products = [e for e in every_equation(jaxpr.jaxpr) if e.primitive.name == "dot_general"]
    wide = [
        equation
        for equation in products
        if all(variable.aval.dtype == jnp.float32 for variable in equation.invars)
    ]
    assert len(products) > 40
    assert not wide, wide[0]


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By the masters' dtype: a weight before, and after training on one batch in bf16."""
    config, graph, params = tiny_model()
    # Weights that bf16 holds exactly, as those of a released checkpoint.
    params = jax.tree.map(lambda leaf: np.asarray(leaf.astype(jnp.bfloat16), np.float32), params)
    optimizer = make_optimizer(RECIPE, STEPS)
    step = jax.jit(
        make_train_step(graph, TPOLoss(), optimizer, jnp.dtype("bfloat16")), compiler_options=QUICK
    )
    batch = random_batch(config, 0, rows=2)
    found = {}
    for dtype in ("float32", "bfloat16"):
        state = init_state(*split_frozen(params, RECIPE.frozen), optimizer)
        masters = cast(state.trained, jnp.dtype(dtype))
        state = replace(state, trained=masters, opt_state=optimizer.init(masters))
        for _ in range(STEPS):
            state, _ = step(state, batch)
        assert state.trained["newline"].dtype == dtype
        found[dtype] = kernel(params), kernel(state.params)
    return found


def test_fp32_masters_move_by_the_sum_of_the_updates(trained: dict) -> None:
    """On one batch the gradient keeps its sign, and Adam moves each weight by the rate."""
    before, after = trained["float32"]
    moved = np.abs(after - before)
    schedule = make_schedule(RECIPE, STEPS)
    expected = float(sum(schedule(step) for step in range(STEPS)))
    assert np.median(moved) == pytest.approx(expected, rel=0.05)
    assert np.mean(moved > 0.5 * expected) > 0.9


def test_bf16_masters_would_stay_where_they_are(trained: dict) -> None:
    before, after = trained["bfloat16"]
    assert np.mean(after != before) < 0.1
    # In bf16 neighbours of a weight of this model lie 1e-5 and more apart.
    assert np.median(np.abs(after - before)) == 0


def test_masters_and_moments_are_fp32_whatever_came_in() -> None:
    config, graph, params = tiny_model()
    optimizer = make_optimizer(RECIPE, STEPS)
    short = cast(params, jnp.dtype("bfloat16"))
    state: TrainState = init_state(*split_frozen(short, RECIPE.frozen), optimizer)
    step = make_train_step(graph, TPOLoss(), optimizer, jnp.dtype("bfloat16"))
    after, metrics = jax.eval_shape(step, state, random_batch(config, 0, rows=2))
    for tree in (state.trained, state.opt_state, after.trained, after.opt_state, metrics):
        for leaf in jax.tree.leaves(tree):
            assert leaf.dtype in (np.float32, np.int32)
    assert optax.tree.get(after.opt_state, "nu")["newline"].dtype == np.float32


@pytest.mark.parametrize(
    ("mesh", "bound"),
    [
        # Laid out alike: the same forward, the same rounding.
        pytest.param(MeshConfig(fsdp=1), 1e-6, id="alike"),
        pytest.param(
            MeshConfig(data=2, tensor=2, fsdp=1),
            FIRST_STEP_TOLERANCE["bfloat16"],
            id="otherwise",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_in_bf16_the_first_step_is_at_the_reference(mesh: MeshConfig, bound: float) -> None:
    """A table made on one device, and a step that goes back, computes layers again, is sharded."""
    config, graph, params = tiny_model(heads=4, kv_heads=2, remat="full")
    batch = random_batch(config, 0, rows=2)
    short = jnp.dtype("bfloat16")
    score = make_reference_step(graph, short)
    batch["reference_logprobs"] = np.asarray(jax.jit(score)(params, batch))
    optimizer = make_optimizer(RECIPE, STEPS)
    found = make_mesh(mesh, devices=mesh.data * mesh.fsdp * mesh.tensor)
    state = init_sharded_state(*split_frozen(params, RECIPE.frozen), optimizer, found)
    step = make_train_step(graph, TPOLoss(), optimizer, short)
    with jax.set_mesh(found):
        _, metrics = jax.jit(step)(state, place_batch(found, batch))
    assert abs(metrics["dpo_loss"] - np.log(2)) < bound
    assert abs(metrics["reward_margin"]) < bound
    assert abs(metrics["reward_chosen"]) < bound
