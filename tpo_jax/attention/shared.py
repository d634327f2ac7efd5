"""Attention of many rows to keys that they share, held once, and to keys of their own."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from tpo_jax.attention.dense import MASKED
from tpo_jax.attention.layout import Layout


def attend_shared(
    q_BTHE: Float[Array, "B T H E"],
    shared_k_PKE: Float[Array, "P K E"],
    shared_v_PKE: Float[Array, "P K E"],
    k_BSKE: Float[Array, "B S K E"],
    v_BSKE: Float[Array, "B S K E"],
    layout: Layout,
) -> Float[Array, "B T H E"]:
    """`attend_dense` over [shared, own] keys, without a copy of the shared ones for each row.

    `layout` has the order and branch of all P + S keys, the shared ones first.
    """
    shared, key_heads, width = shared_k_PKE.shape
    q = rearrange(q_BTHE, "B T (K G) E -> B T K G E", K=key_heads)
    scores = jnp.concatenate(
        [
            jnp.einsum("btkge,pke->bkgtp", q, shared_k_PKE, preferred_element_type=jnp.float32),
            jnp.einsum("btkge,bske->bkgts", q, k_BSKE, preferred_element_type=jnp.float32),
        ],
        axis=-1,
    )
    scores = jnp.where(layout.allowed()[:, None, None], scores * width**-0.5, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKE.dtype)
    out = jnp.einsum("bkgtp,pke->btkge", weights[..., :shared], shared_v_PKE)
    out += jnp.einsum("bkgts,bske->btkge", weights[..., shared:], v_BSKE)
    return rearrange(out, "B T K G E -> B T (K G) E")
