"""Attention in blocks of queries: memory grows with the tokens of a row, not with their square.

For CPU and GPU. Of whole rows, keys that no query of a block may see, because they come later, are
not scored; scores are not kept for the backward pass but computed again.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from tpo_jax.attention.layout import Layout

BLOCK_QUERIES = 128
# Queries that share a cut of the keys. More groups score fewer keys in vain: with 16, 1/32 of all.
GROUPS = 16
MASKED = -1e30


def attend_blockwise(
    q_BTHE: Float[Array, "B T H E"],
    k_BSKE: Float[Array, "B S K E"],
    v_BSKE: Float[Array, "B S K E"],
    layout: Layout,
    *,
    block: int = BLOCK_QUERIES,
    groups: int = GROUPS,
) -> Float[Array, "B T H E"]:
    """What `attend_dense` returns, but for padding queries.

    A padding query, which may see nothing, yields a mean over other keys than there; nothing that
    is supervised sees it.

    Args:
      q_BTHE: queries, k_BSKE and v_BSKE: keys and values; H = K * G.
      layout: where it has a `row`, keys after a block's last query are left out.
      block: queries whose scores exist at once.
      groups: at most so many parts of a row are compiled one after another; within each the blocks
        are a loop.
    """
    tokens, key_heads = q_BTHE.shape[1], k_BSKE.shape[2]
    groups = groups if layout.row else 1
    # Heads before tokens: a product then reads its operands as they lie.
    q_BKGTE = rearrange(q_BTHE, "B T (K G) E -> B K G T E", K=key_heads)
    k_BKSE, v_BKSE = (rearrange(x, "B S K E -> B K S E") for x in (k_BSKE, v_BSKE))
    step = block * -(-tokens // (block * groups))
    outs = []
    for start in range(0, tokens, step):
        end = min(start + step, tokens)
        seen = end if layout.row else k_BKSE.shape[2]
        keys = k_BKSE[:, :, :seen], v_BKSE[:, :, :seen]
        part = _queries(layout, start, end, keys=seen)
        outs.append(_attend_group(q_BKGTE[:, :, :, start:end], *keys, part, block))
    return rearrange(jnp.concatenate(outs, axis=3), "B K G T E -> B T (K G) E")


def _queries(layout: Layout, start: int, end: int, *, keys: int) -> Layout:
    """The layout of some queries on the first `keys` keys."""
    return Layout(
        order_q=layout.order_q[:, start:end],
        branch_q=layout.branch_q[:, start:end],
        order_k=layout.order_k[:, :keys],
        branch_k=layout.branch_k[:, :keys],
    )


def _attend_group(  # type: ignore[no-untyped-def]
    q_BKGTE, k_BKSE, v_BKSE, layout: Layout, block: int
) -> Float[Array, "B K G T E"]:
    """Queries that see the same keys, a block after another."""
    tokens = q_BKGTE.shape[3]
    if tokens <= block:
        return _attend_block(q_BKGTE, k_BKSE, v_BKSE, layout)
    count = -(-tokens // block)
    room = (0, count * block - tokens)
    q = jnp.pad(q_BKGTE, ((0, 0), (0, 0), (0, 0), room, (0, 0)))
    blocks = rearrange(q, "B K G (N T) E -> N B K G T E", N=count)
    orders, branches = (
        rearrange(jnp.pad(x, ((0, 0), room)), "B (N T) -> N B T", N=count)
        for x in (layout.order_q, layout.branch_q)
    )

    def one(given):  # type: ignore[no-untyped-def]
        q, order_q, branch_q = given
        return _attend_block(q, k_BKSE, v_BKSE, replace(layout, order_q=order_q, branch_q=branch_q))

    out = rearrange(jax.lax.map(one, (blocks, orders, branches)), "N B K G T E -> B K G (N T) E")
    return out[:, :, :, :tokens]


@jax.checkpoint
def _attend_block(q_BKGTE, k_BKSE, v_BKSE, layout: Layout):  # type: ignore[no-untyped-def]
    """Softmax in fp32, divided by its sum after the product with the values."""
    groups = q_BKGTE.shape[2]
    q = rearrange(q_BKGTE, "B K G T E -> B K (G T) E")
    scores = jnp.einsum("bkte,bkse->bkts", q, k_BKSE, preferred_element_type=jnp.float32)
    scores = rearrange(scores, "B K (G T) S -> B K G T S", G=groups) * q.shape[-1] ** -0.5
    # Added and not chosen: a sum needs no second look at the mask on the way back.
    scores += jnp.where(layout.allowed(), 0.0, MASKED)[:, None, None]
    # The shift changes nothing but the range: no gradient goes through it.
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    total = jnp.sum(weights, axis=-1)
    weights = rearrange(weights.astype(v_BKSE.dtype), "B K G T S -> B K (G T) S")
    out = jnp.einsum("bkts,bkse->bkte", weights, v_BKSE, preferred_element_type=jnp.float32)
    out = rearrange(out, "B K (G T) E -> B K G T E", G=groups) / total[..., None]
    return out.astype(v_BKSE.dtype)
