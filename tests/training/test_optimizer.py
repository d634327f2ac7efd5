"""The optimizer: torch's AdamW by groups, and nothing for what is frozen."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from tests.tiny import random_batch, tiny_model
from tpo_jax.errors import InputError
from tpo_jax.models.remat import Remat
from tpo_jax.parallel.rules import path_of
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.optimizer import (
    OptimizerConfig,
    decays,
    learning_rate_of,
    make_optimizer,
    split_frozen,
)
from tpo_jax.training.step import init_state, make_train_step

STEPS = 20
RECIPE = OptimizerConfig(
    learning_rate=1e-2,
    part_learning_rates={"projector": 3e-2},
    warmup_ratio=0.2,
    weight_decay=0.1,
    clip_norm=1.0,
    b2=0.98,
)


def expected_rate(step: int, peak: float, warmup: int) -> float:
    """Of update `step`, counted from 0."""
    if step < warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))


def test_updates_are_those_of_torch_with_the_authors_groups() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 1, shape).astype(np.float32)

    params = {
        "projector": {"first": {"kernel": draw(3, 4), "bias": draw(4)}},
        "language": {"norm": {"scale": draw(4)}, "q": {"kernel": draw(4, 4), "bias": draw(4)}},
        "newline": draw(4),
    }
    optimizer = make_optimizer(RECIPE, STEPS)
    state = optimizer.init(params)

    leaves = jax.tree_util.tree_leaves_with_path(params)
    theirs = {path_of(path): torch.nn.Parameter(torch.tensor(leaf)) for path, leaf in leaves}
    groups = [
        {
            "params": [weight],
            "peak": 3e-2 if path.startswith("projector") else 1e-2,
            "weight_decay": 0.0 if path.endswith(("bias", "scale")) else 0.1,
        }
        for path, weight in theirs.items()
    ]
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-8)
    for step in range(STEPS):
        size = 10.0 if step % 2 else 0.01  # some are clipped and some are not
        grads = jax.tree.map(lambda leaf, size=size: size * draw(*leaf.shape), params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        assert learning_rate_of(state) == pytest.approx(expected_rate(step, 1e-2, 4), rel=1e-5)

        for path, grad in jax.tree_util.tree_leaves_with_path(grads):
            theirs[path_of(path)].grad = torch.tensor(np.asarray(grad))
        torch.nn.utils.clip_grad_norm_(list(theirs.values()), 1.0)
        for group in adamw.param_groups:
            group["lr"] = expected_rate(step, group["peak"], 4)
        adamw.step()
    for path, ours in jax.tree_util.tree_leaves_with_path(params):
        expected = theirs[path_of(path)].detach().numpy()
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-6, err_msg=path_of(path))


def test_biases_and_scales_of_norms_do_not_decay() -> None:
    _, _, params = tiny_model()
    found = {
        path_of(path): yes for path, yes in jax.tree_util.tree_leaves_with_path(decays(params))
    }
    assert found["language/layers/norm1/scale"] is False
    assert found["language/layers/q/bias"] is False
    assert found["vision/post_norm/scale"] is False
    assert found["language/layers/q/kernel"] is True
    assert found["language/embed/embedding"] is True
    assert found["newline"] is True


@pytest.mark.parametrize("part", ["projektor", "vision"])
def test_a_rate_for_a_part_that_is_not_trained_is_refused(part: str) -> None:
    _, _, params = tiny_model()
    recipe = OptimizerConfig(learning_rate=1e-3, part_learning_rates={part: 1e-4})
    trained, frozen = split_frozen(params, recipe.frozen)
    with pytest.raises(InputError, match=f"part_learning_rates names '{part}'.*projector"):
        init_state(trained, frozen, make_optimizer(recipe, STEPS))


def test_freezing_an_unknown_part_is_refused() -> None:
    _, _, params = tiny_model()
    with pytest.raises(InputError, match="visoin"):
        split_frozen(params, ("visoin",))


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        OptimizerConfig(learning_rate=0.0)


# ---------------------------------------------------------------------------------- frozen parts


def test_frozen_parts_have_no_optimizer_state() -> None:
    _, _, params = tiny_model()
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), STEPS)
    state = init_state(*split_frozen(params, ("vision", "newline")), optimizer)
    kept = {path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    for part, moments in {"vision": 0, "newline": 0, "language": 2, "projector": 2}.items():
        leaves = len(jax.tree.leaves(params[part]))
        assert sum(part in path for path in kept) == moments * leaves, part


def multiplications(jaxpr: Any, width: int) -> int:
    """Matrix products in a program that read an array with an axis of `width`."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            count += any(width in variable.aval.shape for variable in equation.invars)
        for inner in jaxprs_in_params(equation.params):
            count += multiplications(inner, width)
    return count


@pytest.mark.parametrize("remat", ["none", "full"])
def test_no_gradient_is_computed_through_a_frozen_tower(remat: Remat) -> None:
    config, graph, params = tiny_model(remat=remat)
    batch = random_batch(config, 0, rows=2)
    width = config.vision.mlp_width  # no other part of the model has this width
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), STEPS)
    step = make_train_step(graph, TPOLoss(), optimizer, jnp.dtype("float32"))

    def count(frozen: tuple[str, ...]) -> int:
        state = init_state(*split_frozen(params, frozen), optimizer)
        return multiplications(jax.make_jaxpr(step)(state, batch).jaxpr, width)

    # fc1 writes the width and fc2 reads it: forward, only fc2 and the weights of both count.
    forward = multiplications(
        jax.make_jaxpr(lambda params, frames: _tower(graph, params, frames))(
            params, batch["frames"][0]
        ).jaxpr,
        width,
    )
    assert forward == 2
    assert count(("vision",)) == forward
    assert count(()) >= 3 * forward


def _tower(graph: Any, params: Any, frames: Any) -> Any:
    return nnx.merge(graph, params).vision(frames)
