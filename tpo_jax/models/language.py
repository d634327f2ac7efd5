"""The decoder: Qwen2, or Llama-style by its settings (q/k/v bias, rope theta, tied head)."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from tpo_jax.attention import Layout, attend, attend_shared
from tpo_jax.models.chunks import count_chunks
from tpo_jax.models.remat import LAYER_INPUT, Remat, mark, rematerialised
from tpo_jax.parallel.mesh import constrain_rows

# The most of the MLP's columns that are computed at once, in rows of at least so many tokens.
MLP_COLUMNS = 2560
MLP_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Shape and settings of the decoder; `vocab_rows` is the row count of the stored embedding.

    `padding_rows` more rows make the vocabulary divide over a mesh: they hold zeros, get no
    probability, and are cut off at export. `remat` trades time for memory (`models/remat.py`).
    """

    vocab_rows: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    rope_theta: float
    norm_eps: float
    qkv_bias: bool
    tied_embeddings: bool
    padding_rows: int = 0
    remat: Remat = "full"

    @property
    def table_rows(self) -> int:
        """Rows of the embedding and the head in memory."""
        return self.vocab_rows + self.padding_rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class KVCache:
    """Keys and values of every layer, [L, B, S, K, E], and of a prefix that all rows share."""

    k: Float[Array, "L B S K E"]
    v: Float[Array, "L B S K E"]
    shared_k: Float[Array, "L P K E"] | None = None
    shared_v: Float[Array, "L P K E"] | None = None


def empty_cache(config: LanguageConfig, batch: int, length: int, dtype: jnp.dtype) -> KVCache:
    """A cache of zeros for `length` tokens a row."""
    shape = (config.layers, batch, length, config.kv_heads, config.head_width)
    return KVCache(k=jnp.zeros(shape, dtype), v=jnp.zeros(shape, dtype))


def write_keys(
    held_BSKE: Float[Array, "B S K E"],
    new_BTKE: Float[Array, "B T K E"],
    at: Int[Array, ""] | Int[Array, " B"] | int,
) -> Float[Array, "B S K E"]:
    """The held keys (or values) with new ones from place `at` on, one for all rows or one each."""
    if jnp.ndim(at) == 0:
        return jax.lax.dynamic_update_slice_in_dim(held_BSKE, new_BTKE, at, axis=1)
    write = partial(jax.lax.dynamic_update_slice_in_dim, axis=0)
    return jax.vmap(write)(held_BSKE, new_BTKE, at)


def rotate(
    x_BTHE: Float[Array, "B T H E"], positions_BT: Int[Array, "B T"], theta: float
) -> Float[Array, "B T H E"]:
    """Rotary embedding in the half-split layout; angles in fp32, cos and sin cast to x's dtype."""
    half = x_BTHE.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions_BT[..., None].astype(jnp.float32) * frequency
    cos = jnp.cos(angle)[:, :, None].astype(x_BTHE.dtype)
    sin = jnp.sin(angle)[:, :, None].astype(x_BTHE.dtype)
    first, second = x_BTHE[..., :half], x_BTHE[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class RMSNorm(nnx.Module):
    """x / rms(x) in fp32, cast back, then scaled: the order Qwen2 has it in."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.eps = eps

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last axis."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return self.scale[...] * y.astype(x.dtype)


class TokenEmbedding(nnx.Module):
    """A table of rows by token id, given in the dtype that the table has.

    `nnx.Embed` gives them in the dtype it was made with, fp32, and then everything would be.
    """

    def __init__(self, rows: int, width: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
        self.embedding = nnx.Param(init(rngs.params(), (rows, width)))

    def __call__(self, tokens: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """The rows of these tokens."""
        return jnp.take(self.embedding[...], tokens, axis=0)


class DecoderLayer(nnx.Module):
    """Pre-norm layer: grouped-query attention with rope, then SwiGLU."""

    def __init__(self, config: LanguageConfig, *, rngs: nnx.Rngs):
        self.config = config
        width, bias = config.width, config.qkv_bias
        q_width = config.heads * config.head_width
        kv_width = config.kv_heads * config.head_width
        self.norm1 = RMSNorm(width, config.norm_eps)
        self.norm2 = RMSNorm(width, config.norm_eps)
        self.q = nnx.Linear(width, q_width, use_bias=bias, rngs=rngs)
        self.k = nnx.Linear(width, kv_width, use_bias=bias, rngs=rngs)
        self.v = nnx.Linear(width, kv_width, use_bias=bias, rngs=rngs)
        self.out = nnx.Linear(q_width, width, use_bias=False, rngs=rngs)
        self.gate = nnx.Linear(width, config.mlp_width, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, config.mlp_width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(config.mlp_width, width, use_bias=False, rngs=rngs)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        positions_BT: Int[Array, "B T"],
        layout: Layout,
        cache: KVCache | None,
        write_at: Int[Array, ""] | Int[Array, " B"] | int,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """One layer. Keys go into this layer's cache [B, S, K, E], if given, from `write_at` on.

        Whole rows (`layout.row`) need no other keys than their own. With a shared prefix `layout`
        has its keys first.
        """
        theta = self.config.rope_theta
        y = self.norm1(x_BTD)
        q = rearrange(self.q(y), "B T (H E) -> B T H E", E=self.config.head_width)
        k = rearrange(self.k(y), "B T (K E) -> B T K E", E=self.config.head_width)
        v = rearrange(self.v(y), "B T (K E) -> B T K E", E=self.config.head_width)
        q, k = rotate(q, positions_BT, theta), rotate(k, positions_BT, theta)
        if cache is not None:
            cache = replace(
                cache, k=write_keys(cache.k, k, write_at), v=write_keys(cache.v, v, write_at)
            )
            if layout.row is None:
                k, v = cache.k, cache.v
        if cache is None or cache.shared_k is None or cache.shared_v is None:
            seen_BTHE = attend(q, k, v, layout)
        else:
            seen_BTHE = attend_shared(q, cache.shared_k, cache.shared_v, k, v, layout)
        x_BTD = x_BTD + self.out(rearrange(seen_BTHE, "B T H E -> B T (H E)"))
        return x_BTD + self._mlp(self.norm2(x_BTD)), cache

    def _mlp(self, y_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """SwiGLU; of long rows so many columns at a time that what is inside stays small."""
        count = count_chunks(self.config.mlp_width, MLP_COLUMNS)
        if count == 1 or y_BTD.shape[1] < MLP_TOKENS or self.config.mlp_width % count:
            return self.down(jax.nn.silu(self.gate(y_BTD)) * self.up(y_BTD))
        # Chunk i of c holds every c-th column: it is spread over the devices as all of them are.
        kernels = (
            rearrange(self.gate.kernel[...], "D (W C) -> C D W", C=count),
            rearrange(self.up.kernel[...], "D (W C) -> C D W", C=count),
            rearrange(self.down.kernel[...], "(W C) D -> C W D", C=count),
        )
        # Sums over chunks, of the gradient too, are in fp32.
        y_fp32 = y_BTD.astype(jnp.float32)

        @jax.checkpoint
        def add_chunk(total_BTD, kernels):  # type: ignore[no-untyped-def]
            gate_DW, up_DW, down_WD = kernels
            y = y_fp32.astype(y_BTD.dtype)
            hidden_BTW = jax.nn.silu(y @ gate_DW) * (y @ up_DW)
            own_BTD = jnp.matmul(hidden_BTW, down_WD, preferred_element_type=jnp.float32)
            return constrain_rows(total_BTD + own_BTD), None

        total_BTD, _ = jax.lax.scan(add_chunk, jnp.zeros_like(y_fp32), kernels)
        return total_BTD.astype(y_BTD.dtype)


class Decoder(nnx.Module):
    """Embeddings in, hidden states out; logits are asked for where they are needed."""

    def __init__(self, config: LanguageConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = TokenEmbedding(config.table_rows, config.width, rngs=rngs)
        self.norm = RMSNorm(config.width, config.norm_eps)
        if not config.tied_embeddings:
            self.head = nnx.Linear(config.width, config.table_rows, use_bias=False, rngs=rngs)

        @nnx.vmap
        def make(key: jax.Array) -> DecoderLayer:
            return DecoderLayer(config, rngs=nnx.Rngs(key))

        self.layers = make(jax.random.split(rngs.params(), config.layers))

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        positions_BT: Int[Array, "B T"],
        layout: Layout,
        cache: KVCache | None = None,
        write_at: Int[Array, ""] | Int[Array, " B"] | int = 0,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """Final normed hidden states, and the cache with these tokens written (None without one).

        Layers are scanned; `config.remat` says what of each is kept for the backward pass.
        """
        x_BTD, (cache, _) = self._run_layers(x_BTD, positions_BT, layout, cache, write_at)
        return self.norm(x_BTD), cache

    def states(
        self, x_BTD: Float[Array, "B T D"], positions_BT: Int[Array, "B T"], layout: Layout
    ) -> Float[Array, "L B T D"]:
        """The residual stream after each layer, before the final norm."""
        _, (_, states_LBTD) = self._run_layers(x_BTD, positions_BT, layout, None, 0, keep=True)
        return states_LBTD

    def _run_layers(  # type: ignore[no-untyped-def]
        self, x_BTD, positions_BT, layout, cache, write_at, *, keep: bool = False
    ):
        """(x, (cache, x after each layer to `keep` or None)) of one scan over the layers."""
        graph, stacked = nnx.split(self.layers)

        def body(x, layer_and_cache):  # type: ignore[no-untyped-def]
            layer, layer_cache = layer_and_cache
            x = mark(x, LAYER_INPUT)
            layer = nnx.merge(graph, layer)
            x, layer_cache = layer(x, positions_BT, layout, layer_cache, write_at)
            x = constrain_rows(x)
            return x, (layer_cache, x if keep else None)

        body = rematerialised(body, self.config.remat)
        return jax.lax.scan(body, constrain_rows(x_BTD), (stacked, cache))

    def head_kernel(self) -> Float[Array, "D V"]:
        """The head's weights over the rows of the table; tied, they are the embedding's."""
        if self.config.tied_embeddings:
            return self.embed.embedding[...].T
        return self.head.kernel[...]

    def logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Scores over the rows of the table, fp32; -inf for the rows that are padding.

        For a few places at a time: `preference.logprobs` scores many, the vocabulary in chunks.
        """
        scores = jnp.matmul(hidden, self.head_kernel(), preferred_element_type=jnp.float32)
        if not self.config.padding_rows:
            return scores
        return jnp.where(
            jnp.arange(self.config.table_rows) < self.config.vocab_rows, scores, -jnp.inf
        )
