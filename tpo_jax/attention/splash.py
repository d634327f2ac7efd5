"""Splash attention for rows, on TPU: scores in blocks, in fast memory, and only those seen.

The kernel is jax's. It is told what a row is in two ways. Which blocks of scores are seen at all is
a small table; it is worked out from the first and last place of each block, on the device, so no
step prepares a mask on the host. Inside a block the mask is a formula of the places, with no array.
Padding is told as segments. Keys are not repeated for the query heads they serve.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as tables
from jaxtyping import Array, Bool, Float, Int

from tpo_jax.attention.layout import PAD_BRANCH, Layout, RowParts

# Each must be a multiple of 128. Wider blocks read keys less often; these fit every chip.
BLOCKS = (1024, 512, 256, 128)
LANES = BLOCKS[-1]
MASKED = -1e30
# What the kernel computes for the way back bears this name, for policies of rematerialisation.
RESIDUALS = "attention"


@dataclass(frozen=True)
class RowMask:
    """(places of queries, places of keys) -> seen: not later, and in the prompt or one's branch."""

    parts: RowParts

    def __call__(
        self, order_q: Int[Array, "..."], order_k: Int[Array, "..."]
    ) -> Bool[Array, "..."]:
        seen = order_k <= order_q
        if self.parts.answers < 2:
            return seen
        return seen & ((order_k < self.parts.prompt) | (order_k >= self.branch_start(order_q)))

    def branch_start(self, order_q: Int[Array, "..."]) -> Int[Array, "..."]:
        """First place of the answer that a query is in; for the prompt's own, past the prompt."""
        start = jnp.full_like(order_q, self.parts.prompt)
        for number in range(1, self.parts.answers):
            place = self.parts.prompt + number * self.parts.answer
            start = jnp.where(order_q >= place, place, start)
        return start


def fitting_block(tokens: int) -> int:
    """The widest block that divides so many tokens; 0 if none does."""
    return next((block for block in BLOCKS if tokens % block == 0), 0)


def attend_splash(
    q_BTHE: Float[Array, "B T H E"],
    k_BSKE: Float[Array, "B S K E"],
    v_BSKE: Float[Array, "B S K E"],
    layout: Layout,
    parts: RowParts,
    *,
    runs: int = 1,
    block: int | None = None,
    interpret: bool = False,
) -> Float[Array, "B T H E"]:
    """What `attend_dense` returns for queries of a row on all its keys, but for padding queries.

    Args:
      q_BTHE: queries at places `layout.order_q`, the same for all rows; H = K * G.
      k_BSKE: keys, v_BSKE: values of the whole row, in order.
      layout: of these queries and keys.
      parts: of the row; its answers must lie where the branches have them.
      runs: the queries are so many runs of places without a gap, equally long.
      block: queries and keys whose scores are computed at once, a multiple of 128.
      interpret: run without a TPU, slowly: for tests.
    """
    tokens, keys = q_BTHE.shape[1], k_BSKE.shape[1]
    block_q = block or fitting_block(tokens // runs) or LANES
    block_k = block or fitting_block(keys) or LANES
    # Whoever cares for memory hands over whole blocks: then nothing is added or copied.
    room_q, room_k = -tokens % block_q, -keys % block_k
    order_T = jnp.pad(layout.order_q[0], (0, room_q), mode="edge")
    sight = RowMask(parts)
    fwd = _block_table(sight, order_T, block_q, keys + room_k, block_k, by_key=False)
    dkv = _block_table(sight, order_T, block_q, keys + room_k, block_k, by_key=True)
    kernel = kernels.SplashAttentionKernel(
        fwd,
        fwd,
        dkv,
        block_sizes=_block_sizes(block_q, block_k),
        is_mqa=False,
        save_residuals=False,
        mask_value=MASKED,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=RESIDUALS,
        mask_function=sight,
        interpret=interpret,
    )
    q = _padded(q_BTHE * q_BTHE.shape[-1] ** -0.5, room_q)
    segments = kernels.SegmentIds(
        q=jnp.pad((layout.branch_q != PAD_BRANCH).astype(jnp.int32), ((0, 0), (0, room_q))),
        kv=jnp.pad((layout.branch_k != PAD_BRANCH).astype(jnp.int32), ((0, 0), (0, room_k))),
    )
    out = jax.vmap(kernel)(q, _padded(k_BSKE, room_k), _padded(v_BSKE, room_k), segments)
    return jnp.swapaxes(out, 1, 2)[:, :tokens]  # type: ignore[arg-type]


def _padded(x_BTHE: jax.Array, room: int) -> Float[Array, "B H T E"]:
    x = rearrange(x_BTHE, "B T H E -> B H T E")
    return jnp.pad(x, ((0, 0), (0, 0), (0, room), (0, 0))) if room else x


def _block_sizes(block_q: int, block_k: int) -> kernels.BlockSizes:
    return kernels.BlockSizes(
        block_q=block_q,
        block_kv=block_k,
        block_kv_compute=min(block_k, 512),
        block_q_dkv=block_q,
        block_kv_dkv=block_k,
        block_kv_dkv_compute=min(block_k, 512),
        block_q_dq=block_q,
        block_kv_dq=block_k,
        # The fused kernel keeps a part of the queries' gradient for every block of keys.
        use_fused_bwd_kernel=False,
    )


def _block_table(
    sight: RowMask,
    order_T: Int[Array, " T"],
    block_q: int,
    keys: int,
    block_k: int,
    *,
    by_key: bool,
) -> tables.MaskInfo:
    """Which blocks are seen, and for each the next one that is: it is fetched meanwhile.

    `by_key` is for the kernel that goes through all queries for a block of keys.
    """
    order_QT = rearrange(order_T, "(Q T) -> Q T", T=block_q)
    first, last = jnp.min(order_QT, axis=1)[:, None], jnp.max(order_QT, axis=1)[:, None]
    first_k = jnp.arange(0, keys, block_k, dtype=jnp.int32)[None]
    last_k = first_k + block_k - 1
    seen = first_k <= last
    if sight.parts.answers > 1:
        seen &= (first_k < sight.parts.prompt) | (last_k >= sight.branch_start(first))
    along = seen.T if by_key else seen
    count = along.shape[1]
    numbers = jnp.arange(along.size, dtype=jnp.int32)
    found = jnp.where(along.reshape(-1), numbers, along.size)
    next_seen = jax.lax.cummin(found, reverse=True) % along.size % count
    table = next_seen.reshape(along.shape)
    # The narrowest type: both tables lie in the little memory that a chip has for scalars.
    dtype = jnp.int8 if count <= 127 else jnp.int16
    return tables.MaskInfo(
        data_next=(table.T if by_key else table).astype(dtype)[None],
        mask_next=None,
        block_mask=seen.astype(jnp.int8)[None],
        partial_mask_blocks=None,
        q_sequence=order_T,  # type: ignore[arg-type]
    )
