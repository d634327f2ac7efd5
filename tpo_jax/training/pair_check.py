"""A training step on one pair, taken apart: its loss, its gradient, and where it is not finite."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tpo_jax.attention import PAD_BRANCH
from tpo_jax.interop.verify import ROW_STATES, VIDEO_STATES, all_states
from tpo_jax.models.video_lmm import Params
from tpo_jax.parallel.rules import path_of
from tpo_jax.preference.logprobs import Batch
from tpo_jax.preference.losses import Loss, Metrics
from tpo_jax.training.step import cast, make_loss

# Metrics; whether each state of the forward pass is finite (of stacked layers, each);
# whether the gradient of each parameter is, by its path.
Check = tuple[Metrics, dict[str, jax.Array], dict[str, jax.Array]]


def make_pair_check(
    graph: nnx.GraphDef, loss: Loss, compute_dtype: jnp.dtype
) -> Callable[[Params, Params, Batch], Check]:
    """(trained, frozen, batch) -> Check, for a batch that holds one pair, as often as it must.

    Loss and gradient of such a batch are those of the pair. Metrics are those of the loss, "loss"
    and "grad_norm".
    """
    gradient = jax.value_and_grad(make_loss(graph, loss, compute_dtype), has_aux=True)

    def check(trained: Params, frozen: Params, batch: Batch) -> Check:
        (value, metrics), grads = gradient(trained, frozen, batch, None)
        metrics |= {"loss": value, "grad_norm": optax.tree.norm(grads)}
        model = nnx.merge(graph, cast({**trained, **frozen}, compute_dtype))
        return metrics, _finite_states(all_states(model, batch), batch), finite_leaves(grads)

    return check


def finite_leaves(params: Params) -> dict[str, jax.Array]:
    """Whether each parameter, by its path, is finite."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {path_of(path): jnp.all(jnp.isfinite(leaf)) for path, leaf in leaves}


def find_fault(check: Any, reference: np.ndarray | None) -> str | None:
    """The first thing on the way forward and back that is not finite; None if all is.

    Args:
      check: a Check, on the host.
      reference: the batch's log-probs of the reference, if it has them.
    """
    metrics, states, gradients = check
    for name in (*VIDEO_STATES, *ROW_STATES):  # jit sorts the keys of what it returns
        for layer, one in enumerate(np.atleast_1d(states[name])):
            if not one:
                return name.format(layer)
    if reference is not None and not np.isfinite(reference).all():
        return "the reference's log-probs"
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if "loss" in bad:
        return ", ".join(bad)
    wrong = [name for name, finite in gradients.items() if not finite]
    if wrong:
        return f"the gradient of {len(wrong)} of {len(gradients)} parameters, as {wrong[-1]}"
    return None


def _finite_states(states: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """By the names of the states; what stands in padding does not count."""
    is_padding_BT1 = (batch["branch"] == PAD_BRANCH)[..., None]
    found = {}
    for name in (*VIDEO_STATES, *ROW_STATES):
        finite = jnp.isfinite(states[name])
        if name in ROW_STATES:
            finite |= is_padding_BT1
        stacked = "{}" in name
        found[name] = jnp.all(finite, axis=tuple(range(int(stacked), finite.ndim)))
    return found
