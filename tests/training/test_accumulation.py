"""A batch in parts gives what the whole batch gives, and no row leaves its device for it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.quick_compile import QUICK
from tests.tiny import random_batch, tiny_model
from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import BATCH_AXES, MeshConfig, batch_sharding, make_mesh
from tpo_jax.parallel.rules import param_shardings
from tpo_jax.preference.logprobs import row_mask
from tpo_jax.preference.losses import EveryAnswerSFT, Loss, TPOLoss
from tpo_jax.training.optimizer import split_frozen
from tpo_jax.training.step import check_accumulate, init_state, make_train_step, split_rows

ROWS = 4
LOSSES: dict[str, Loss] = {
    "pair_mean": TPOLoss(beta=0.3, sft_reduction="pair_mean"),
    "token_mean": TPOLoss(beta=0.3, sft_reduction="token_mean"),
    "sum": TPOLoss(beta=0.3, sft_reduction="sum"),
    "every_answer": EveryAnswerSFT(reduction="token_mean"),
}


def keep_gradient() -> optax.GradientTransformation:
    """Changes no parameter; its state after a step is the step's gradient."""

    def update(grads: dict, state: dict, params: dict | None = None) -> tuple[dict, dict]:
        return jax.tree.map(jnp.zeros_like, grads), grads

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def one_step(
    loss: Loss, accumulate: int, mesh: MeshConfig | None = None, rows: int = ROWS
) -> tuple[dict, dict]:
    """(gradient, metrics) of a step."""
    config, graph, params = tiny_model()
    batch = random_batch(config, 5, rows=rows, prompt_targets=4)
    step = make_train_step(
        graph, loss, keep_gradient(), jnp.dtype("float32"), accumulate=accumulate
    )
    if mesh is not None:
        devices = make_mesh(mesh)
        params = jax.device_put(params, param_shardings(devices, params))
        batch = jax.device_put(batch, batch_sharding(devices))
    state = init_state(*split_frozen(params, ("vision",)), keep_gradient())
    after, metrics = jax.jit(step, compiler_options=QUICK)(state, batch)
    return jax.device_get(after.opt_state), jax.device_get(metrics)


def assert_same(found: tuple[dict, dict], expected: tuple[dict, dict], relative: float) -> None:
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        assert found[1][name] == pytest.approx(value, rel=relative, abs=relative), name
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(found[0]), jax.tree.leaves(expected[0]), strict=True
    ):
        assert np.linalg.norm(ours - theirs) <= relative * np.linalg.norm(theirs), path


@pytest.mark.parametrize(
    "name",
    # That each loss adds up is shown without a model in tests/preference/test_losses.py.
    [pytest.param(n, marks=[] if n == "token_mean" else pytest.mark.slow) for n in LOSSES],
)
def test_parts_add_up_to_the_whole(name: str) -> None:
    whole = one_step(LOSSES[name], 1)
    for parts in (2, 4):
        # The bound of all equalities in fp32; 1.1e-6 was seen, in a bias of the keys.
        assert_same(one_step(LOSSES[name], parts), whole, 1e-5)


def test_a_mean_of_the_means_of_the_parts_would_be_something_else() -> None:
    """The rows above are uneven enough to tell."""
    config, _, _ = tiny_model()
    batch = jax.tree.map(jnp.asarray, random_batch(config, 5, rows=ROWS, prompt_targets=4))
    mask, loss = row_mask(batch), LOSSES["token_mean"]
    policy, reference = 1.5 * batch["reference_logprobs"], batch["reference_logprobs"]
    whole, _ = loss(policy, mask, reference)
    parts = split_rows({"policy": policy, "mask": mask, "reference": reference}, 2)
    means = [loss(*(parts[k][n] for k in ("policy", "mask", "reference")))[0] for n in range(2)]
    assert abs(float(np.mean(means)) - float(whole)) > 1e-2


# ------------------------------------------------------------------------------------ on a mesh


def test_parts_take_every_nth_row() -> None:
    parts = split_rows({"ids": jnp.arange(12)}, 3)["ids"]
    np.testing.assert_array_equal(parts, [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])


@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=8), MeshConfig(data=2, fsdp=2, tensor=2)])
def test_no_row_leaves_its_device(mesh: MeshConfig) -> None:
    devices = make_mesh(mesh)
    rows = np.zeros((32, 3, 5), np.uint8)
    batch = jax.device_put({"frames": rows}, batch_sharding(devices))
    compiled = jax.jit(split_rows, static_argnums=1).lower(batch, 4).compile()
    wanted = NamedSharding(devices, P(None, BATCH_AXES))
    assert compiled.output_shardings["frames"].is_equivalent_to(wanted, rows.ndim + 1)
    moves = r"all-gather|all-to-all|collective-permute|all-reduce"
    assert not re.search(moves, compiled.as_text() or "")


@pytest.mark.slow
def test_parts_add_up_on_a_mesh() -> None:
    loss = LOSSES["token_mean"]
    sharded = one_step(loss, 2, MeshConfig(data=2, fsdp=2, tensor=2), rows=8)
    assert_same(sharded, one_step(loss, 1, rows=8), 5e-6)


def test_a_batch_that_does_not_split_is_one_sentence() -> None:
    config, graph, params = tiny_model()
    step = make_train_step(graph, LOSSES["sum"], optax.sgd(0.1), jnp.dtype("float32"), accumulate=3)
    state = init_state(*split_frozen(params, ("vision",)), optax.sgd(0.1))
    with pytest.raises(InputError, match="batch_pairs=4.*accumulate=3.*multiple of 3"):
        jax.eval_shape(step, state, random_batch(config, 0, rows=ROWS))
    with pytest.raises(InputError, match="batch_pairs=8.*accumulate=2.*over.*8 devices"):
        check_accumulate(8, 2, 8)
    with pytest.raises(InputError, match="accumulate=0"):
        check_accumulate(8, 0, 1)
    check_accumulate(16, 2, 8)
