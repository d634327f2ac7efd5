"""AdamW with warm-up and cosine decay, and which parameters it touches."""

from dataclasses import dataclass

import optax

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer settings. `frozen` names the top-level parts that are not trained."""

    learning_rate: float
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    frozen: tuple[str, ...] = ("vision",)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW; linear warm-up, then cosine decay to zero."""
    warmup = min(max(1, round(steps * config.warmup_ratio)), max(1, steps - 1))
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            rate,
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        ),
    )


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
