"""How the next token is chosen."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """`temperature` 0 is greedy; `max_new_tokens` counts the end token."""

    max_new_tokens: int = 32
    temperature: float = 0.0


def choose(
    logits_BV: Float[Array, "B V"], keys_B: Array, step: Int[Array, ""], temperature: float
) -> Int[Array, " B"]:
    """One token a row. Rows have their own keys, so a row's draw does not depend on its batch."""
    if temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    draw = lambda key, logits: jax.random.categorical(  # noqa: E731
        jax.random.fold_in(key, step), logits / temperature
    )
    return jax.vmap(draw)(keys_B, logits_BV).astype(jnp.int32)


def logprob_of(logits_BV: Float[Array, "B V"], token_B: Int[Array, " B"]) -> Float[Array, " B"]:
    """Log-prob of a token a row, as the model has it: no temperature, nothing cut away."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits_BV), token_B[:, None], axis=-1)[:, 0]
