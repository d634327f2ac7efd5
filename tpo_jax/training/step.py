"""One training step: a pure function (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from flax import nnx

from tpo_jax.attention import PAD_BRANCH
from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params
from tpo_jax.preference.logprobs import Batch, row_logprobs, row_mask
from tpo_jax.preference.losses import Loss, Metrics
from tpo_jax.training.optimizer import learning_rate_of


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """What a step changes (`trained`, `opt_state`, `step`) and the frozen rest.

    Trained parameters and moments are fp32. `step` counts the batches that were taken; updates are
    counted in `opt_state`, and there are fewer of them if a step was skipped.
    """

    step: jax.Array
    trained: Params
    frozen: Params
    opt_state: optax.OptState

    @property
    def params(self) -> Params:
        """All parameters of the model."""
        return {**self.trained, **self.frozen}


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
LossOf = Callable[[Params, Params, Batch, Any], tuple[jax.Array, Metrics]]


def init_state(
    trained: Params, frozen: Params, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step; `trained` becomes fp32 if it is not."""
    # Most bf16 weights would stay where they are: an update is smaller than their spacing.
    trained = cast(trained, jnp.dtype("float32"))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        frozen=frozen,
        opt_state=optimizer.init(trained),
    )


def cast(params: Params, dtype: jnp.dtype) -> Params:
    """Parameters in the compute dtype; masters stay as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def check_accumulate(batch_pairs: int, accumulate: int, ways: int) -> None:
    """Raises InputError when a batch has no equal microbatches over `ways` devices."""
    if accumulate < 1 or batch_pairs % (accumulate * ways):
        raise InputError(
            f"config.train.batch_pairs={batch_pairs} does not split into "
            f"config.train.accumulate={accumulate} equal parts over data*fsdp={ways} devices; use "
            f"a multiple of {max(accumulate, 1) * ways}"
        )


def split_rows(batch: Batch, parts: int) -> dict[str, jax.Array]:
    """Arrays [B, ...] as microbatches [N, B / N, ...]; microbatch n has rows n, n + N, n + 2N, ...

    Devices hold consecutive rows. Every N-th of them, and not B / N consecutive ones, leaves each
    row on its device and gives every device a part of every microbatch.
    """
    return {
        name: rearrange(jnp.asarray(array), "(B N) ... -> N B ...", N=parts)
        for name, array in batch.items()
    }


def make_loss(graph: nnx.GraphDef, loss: Loss, compute_dtype: jnp.dtype) -> LossOf:
    """(trained, frozen, batch, total weight or None) -> (loss, metrics)."""

    def loss_of(
        trained: Params, frozen: Params, batch: Batch, total_weight: Any
    ) -> tuple[jax.Array, Metrics]:
        # Frozen parts are no argument of the gradient: nothing is kept of them to go back through.
        model = nnx.merge(graph, cast({**trained, **frozen}, compute_dtype))
        policy = row_logprobs(model, batch)
        given = {} if total_weight is None else {"total_weight": total_weight}
        return loss(policy, row_mask(batch), batch.get("reference_logprobs"), **given)

    return loss_of


def make_train_step(
    graph: nnx.GraphDef,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    compute_dtype: jnp.dtype,
    *,
    accumulate: int = 1,
    grad_norm_limit: float = 0.0,
) -> TrainStep:
    """The step for a model structure, a loss and an optimizer; jit it where it is used.

    The batch holds stacked rows, `frames`, and, when the loss needs it, `reference_logprobs`
    fp32 [B, 2, S+A]. Gradients are those of the fp32 parameters, whatever the compute dtype.

    With `accumulate` > 1 the rows go through the model in so many equal parts, one after another,
    and loss, metrics and gradient are their sums: each part is divided by the weight of the whole
    batch, so that what comes out is what the whole batch would give.

    A step whose loss or gradient is not finite changes no parameter, no moment and no count of the
    optimizer. Nor does one whose `grad_norm` is above `grad_norm_limit`, if that is not 0.

    Metrics are those of the loss, and:
      tokens: tokens of the rows, visual ones too; padding is left out.
      padding_share: part of all places in the rows that is padding.
      grad_norm: of the whole gradient before clipping.
      learning_rate: of this step, if the optimizer has a schedule.
      skipped: 1 if the step changed nothing, else 0.
    """

    gradient = jax.value_and_grad(make_loss(graph, loss, compute_dtype), has_aux=True)

    def whole(state: TrainState, batch: Batch) -> tuple[Params, Metrics]:
        (value, metrics), grads = gradient(state.trained, state.frozen, batch, None)
        return grads, metrics | {"loss": value}

    def in_parts(state: TrainState, batch: Batch) -> tuple[Params, Metrics]:
        check_accumulate(batch["tokens"].shape[0], accumulate, 1)
        weight = loss.weight(row_mask(batch))

        def add(grads: Params, part: Batch) -> tuple[Params, Metrics]:
            (value, metrics), own = gradient(state.trained, state.frozen, part, weight)
            return jax.tree.map(jnp.add, grads, own), metrics | {"loss": value}

        zeros = jax.tree.map(jnp.zeros_like, state.trained)
        grads, metrics = jax.lax.scan(add, zeros, split_rows(batch, accumulate))
        return grads, jax.tree.map(lambda parts_N: jnp.sum(parts_N, axis=0), metrics)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, metrics = (in_parts if accumulate > 1 else whole)(state, batch)
        grad_norm = optax.tree.norm(grads)
        good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
        if grad_norm_limit:
            good &= grad_norm <= grad_norm_limit
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        padding_share = jnp.mean(batch["branch"] == PAD_BRANCH)
        metrics |= {
            "tokens": (1 - padding_share) * batch["branch"].size,
            "padding_share": padding_share,
            "grad_norm": grad_norm,
            "skipped": 1 - good.astype(jnp.float32),
        }
        rate = learning_rate_of(opt_state)
        if rate is not None:
            metrics["learning_rate"] = rate
        trained, opt_state = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            (trained, opt_state),
            (state.trained, state.opt_state),
        )
        new = TrainState(
            step=state.step + 1, trained=trained, frozen=state.frozen, opt_state=opt_state
        )
        return new, metrics

    return train_step
