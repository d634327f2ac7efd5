"""One training step: a pure function (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from tpo_jax.models.video_lmm import Params
from tpo_jax.preference.logprobs import Batch, answer_logprobs
from tpo_jax.preference.losses import Loss, Metrics


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything a step changes (`trained`, `opt_state`, `step`) and the frozen rest; fp32."""

    step: jax.Array
    trained: Params
    frozen: Params
    opt_state: optax.OptState

    @property
    def params(self) -> Params:
        """All parameters of the model."""
        return {**self.trained, **self.frozen}


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def init_state(
    trained: Params, frozen: Params, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        frozen=frozen,
        opt_state=optimizer.init(trained),
    )


def cast(params: Params, dtype: jnp.dtype) -> Params:
    """Parameters in the compute dtype; masters stay as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def make_train_step(
    graph: nnx.GraphDef,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    compute_dtype: jnp.dtype,
) -> TrainStep:
    """The step for a model structure, a loss and an optimizer; jit it where it is used.

    The batch holds stacked rows, `frames`, and, when the loss needs it, `reference_logprobs`
    fp32 [B, 2, A].
    """

    def loss_of(trained: Params, frozen: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
        model = nnx.merge(graph, cast({**trained, **frozen}, compute_dtype))
        policy = answer_logprobs(model, batch)
        value, metrics = loss(policy, batch["answer_mask"], batch.get("reference_logprobs"))
        return value, metrics

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, metrics = jax.grad(loss_of, has_aux=True)(state.trained, state.frozen, batch)
        metrics["grad_norm"] = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        new = TrainState(
            step=state.step + 1, trained=trained, frozen=state.frozen, opt_state=opt_state
        )
        return new, metrics

    return train_step
