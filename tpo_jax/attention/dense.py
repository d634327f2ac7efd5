"""Attention with every score written out: the truth that faster kernels are compared with."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from tpo_jax.attention.layout import Layout

# Finite, so that a padding query, which may see nothing, yields a mean and not a NaN.
MASKED = -1e30


def attend_dense(
    q_BTHE: Float[Array, "B T H E"],
    k_BSKE: Float[Array, "B S K E"],
    v_BSKE: Float[Array, "B S K E"],
    layout: Layout | None = None,
) -> Float[Array, "B T H E"]:
    """Scaled dot-product attention with grouped keys, softmax in fp32.

    Key head j serves query heads j*G .. j*G+G-1 with G = H / K. `layout=None` lets every query see
    every key (the vision tower).
    """
    key_heads, width = k_BSKE.shape[2:]
    q = rearrange(q_BTHE, "B T (K G) E -> B T K G E", K=key_heads)
    scores = jnp.einsum("btkge,bske->bkgts", q, k_BSKE, preferred_element_type=jnp.float32)
    scores = scores * width**-0.5
    if layout is not None:
        scores = jnp.where(layout.allowed()[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKE.dtype)
    out = jnp.einsum("bkgts,bske->btkge", weights, v_BSKE)
    return rearrange(out, "B T K G E -> B T (K G) E")
