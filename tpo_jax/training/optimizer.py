"""AdamW with warm-up and cosine decay, and which parameters it touches at which rate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params

# Decay pulls weights to zero, where a bias may go but the scale of a norm should not; neither is
# decayed, as in the authors' parameter groups.
WITHOUT_DECAY = ("bias", "scale")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer settings.

    Attributes:
      learning_rate: the highest, after the warm-up and before the cosine.
      part_learning_rates: the same for a top-level part, where it has a rate of its own; warm-up
        and cosine are shared.
      warmup_ratio: part of all steps in which the rate rises.
      weight_decay: decoupled; not on biases and scales of norms.
      clip_norm: of the whole gradient.
      frozen: top-level parts that are not trained: no gradient, no moments.
    """

    learning_rate: float
    part_learning_rates: Mapping[str, float] = field(default_factory=dict)
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    frozen: tuple[str, ...] = ("vision",)

    def __post_init__(self) -> None:
        """ValueError when the rate is not positive."""
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")


class RateState(NamedTuple):
    """Updates made so far (int32) and the rate of the last one (fp32); both scalars."""

    updates: jax.Array
    learning_rate: jax.Array


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up from zero, then cosine decay to zero over the rest of `steps`."""
    warmup = min(max(1, round(steps * config.warmup_ratio)), max(1, steps - 1))
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW at the rate of each part.

    Its `init` raises InputError when `part_learning_rates` names a part that is not trained.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
        _scale_by_rate(make_schedule(config, steps), config),
    )


def learning_rate_of(opt_state: optax.OptState) -> jax.Array | None:
    """The rate of the last update, or None for an optimizer that keeps none."""
    return optax.tree.get(opt_state, "learning_rate", None)


def decays(params: Params) -> Params:
    """For every parameter whether weight decay applies to it."""

    def leaf_decays(key_path: tuple[Any, ...], _: Any) -> bool:
        return key_path[-1].key not in WITHOUT_DECAY

    return jax.tree_util.tree_map_with_path(leaf_decays, params)


def split_frozen(params: Params, frozen: tuple[str, ...]) -> tuple[Params, Params]:
    """(trained, frozen) by top-level part.

    Raises:
      InputError: a name in `frozen` is no part of the model.
    """
    for part in frozen:
        if part not in params:
            raise InputError(
                f"train.frozen names {part!r}, which is no part of the model; "
                f"its parts are {', '.join(params)}"
            )
    trained = {part: value for part, value in params.items() if part not in frozen}
    return trained, {part: params[part] for part in frozen}


def _scale_by_rate(
    schedule: optax.Schedule, config: OptimizerConfig
) -> optax.GradientTransformation:
    """Minus the scheduled rate, in each part as large as its own peak is to the common one."""
    rates = config.part_learning_rates

    def init(params: Params) -> RateState:
        _check_parts(rates, params)
        return RateState(updates=jnp.zeros((), jnp.int32), learning_rate=jnp.zeros(()))

    def update(
        updates: Params, state: RateState, params: Params | None = None
    ) -> tuple[Params, RateState]:
        rate = jnp.asarray(schedule(state.updates), jnp.float32)
        scaled = {}
        for part, value in updates.items():
            own = rate * (rates[part] / config.learning_rate) if part in rates else rate
            scaled[part] = jax.tree.map(lambda leaf, own=own: -own * leaf, value)
        return scaled, RateState(updates=state.updates + 1, learning_rate=rate)

    return optax.GradientTransformation(init, update)


def _check_parts(names: Iterable[str], trained: Params) -> None:
    for name in names:
        if name not in trained:
            raise InputError(
                f"train.part_learning_rates names {name!r}, which is no trained part of the model; "
                f"its trained parts are {', '.join(trained)}"
            )
