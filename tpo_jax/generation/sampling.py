"""How the next token is chosen."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tpo_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """As in transformers: first the penalty, then temperature, top-k and top-p.

    Attributes:
      max_new_tokens: said at most; the end token counts.
      temperature: 0 is greedy.
      top_k: so many of the likeliest tokens are drawn from; 0 for all.
      top_p: of the likeliest tokens, as few as have this much probability together.
      repetition_penalty: of tokens that this answer has said before: positive logits are divided
        by it, others multiplied. What the prompt says does not count.
    """

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        bounds = (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (all tokens) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0"),
        )
        for name, right, mend in bounds:
            if not right:
                raise InputError(f"sampling.{name} is {getattr(self, name)}; give {mend}")


def choose(
    logits_BV: Float[Array, "B V"],
    said_BV: Bool[Array, "B V"],
    keys_B: Array,
    step_B: Int[Array, " B"],
    temperature_B: Float[Array, " B"],
    config: SamplingConfig,
) -> Int[Array, " B"]:
    """One token a row. Rows have their own keys, so a row's draw does not depend on its batch.

    Args:
      logits_BV: the model's, fp32.
      said_BV: tokens that the answer has already.
      keys_B: of the rows.
      step_B: number of this token in its answer.
      temperature_B: of the rows; that of the config is not read.
      config: the rest.
    """
    if config.repetition_penalty != 1:
        penalty = config.repetition_penalty
        less = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
        logits_BV = jnp.where(said_BV, less, logits_BV)
    greedy_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)

    def draw() -> Int[Array, " B"]:
        scores_BV = logits_BV / jnp.where(temperature_B > 0, temperature_B, 1.0)[:, None]
        kept_BV = keep_likeliest(scores_BV, top_k=config.top_k, top_p=config.top_p)
        drawn_B = jax.vmap(
            lambda key, step, scores: jax.random.categorical(jax.random.fold_in(key, step), scores)
        )(keys_B, step_B, kept_BV)
        return jnp.where(temperature_B > 0, drawn_B.astype(jnp.int32), greedy_B)

    return jax.lax.cond(jnp.any(temperature_B > 0), draw, lambda: greedy_B)


def keep_likeliest(
    scores_BV: Float[Array, "B V"], *, top_k: int, top_p: float
) -> Float[Array, "B V"]:
    """The scores, -inf for what top-k and then top-p leave out; the likeliest token always stays.

    Of equal scores at the edge of top-k all stay; of top-p those that come first when sorted.
    """
    if 0 < top_k < scores_BV.shape[-1]:
        edge_B1 = jax.lax.top_k(scores_BV, top_k)[0][:, -1:]
        scores_BV = jnp.where(scores_BV < edge_B1, -jnp.inf, scores_BV)
    if top_p < 1:
        # From the unlikeliest up: those that have at most 1 - top_p together go.
        order_BV = jnp.argsort(scores_BV, axis=-1)
        sums_BV = jnp.cumsum(
            jax.nn.softmax(jnp.take_along_axis(scores_BV, order_BV, axis=-1)), axis=-1
        )
        goes_BV = (sums_BV <= 1 - top_p).at[:, -1].set(False)
        places_BV = jnp.argsort(order_BV, axis=-1)
        scores_BV = jnp.where(jnp.take_along_axis(goes_BV, places_BV, axis=-1), -jnp.inf, scores_BV)
    return scores_BV


def logprob_of(logits_BV: Float[Array, "B V"], token_B: Int[Array, " B"]) -> Float[Array, " B"]:
    """Log-prob of a token a row, as the model has it: no temperature, nothing cut away."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits_BV), token_B[:, None], axis=-1)[:, 0]
