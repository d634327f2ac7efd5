"""Rows that say answers side by side: where each stands, and the compiled steps that move them.

A `Prefix` is what all rows see first, a video for one, held once. A slot is a row of the batch:
`admit` gives it a new prompt, `decode` lets every slot say some tokens more. Slots are at different
tokens of their answers, and a slot's tokens depend on no other slot.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int

from tpo_jax.attention import PAD_BRANCH, PROMPT_BRANCH, Layout, row_layout
from tpo_jax.generation.sampling import SamplingConfig, choose, logprob_of
from tpo_jax.models.language import KVCache, empty_cache
from tpo_jax.models.video_lmm import Params, VideoLMM, VideoLMMConfig
from tpo_jax.parallel.mesh import constrain_cache

# A shared key comes before every own one.
BEFORE_ALL = -1


@struct.dataclass
class Prefix:
    """Keys and values of a prompt's beginning, its tokens' branch, and how many are no padding."""

    k: Float[Array, "L P K E"]
    v: Float[Array, "L P K E"]
    branch_P: Int[Array, " P"]
    length: Int[Array, ""]


@struct.dataclass
class Slots:
    """B rows: cache of S own places, and what each has said of at most A tokens."""

    cache: KVCache
    branch_BS: Int[Array, "B S"]
    place_B: Int[Array, " B"]  # where the next key goes
    position_B: Int[Array, " B"]  # of the token that was said last
    count_B: Int[Array, " B"]  # tokens said
    done_B: Bool[Array, " B"]
    said_BA: Int[Array, "B A"]
    logprobs_BA: Float[Array, "B A"]
    seen_BV: Bool[Array, "B V"]
    keys_B: Array
    temperature_B: Float[Array, " B"]


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def empty_slots(
    config: VideoLMMConfig, sampling: SamplingConfig, rows: int, suffix: int, dtype: jnp.dtype
) -> Slots:
    """Slots that are done, with room for prompts of `suffix` tokens after the prefix."""
    new = sampling.max_new_tokens
    length = suffix + new
    own = jnp.arange(length) >= suffix  # places of the answer; the prompt's are set by `admit`
    return Slots(
        cache=_laid(empty_cache(config.language, rows, length, dtype)),
        branch_BS=jnp.broadcast_to(jnp.where(own, PROMPT_BRANCH, PAD_BRANCH), (rows, length)),
        place_B=jnp.full(rows, suffix, jnp.int32),
        position_B=jnp.zeros(rows, jnp.int32),
        count_B=jnp.zeros(rows, jnp.int32),
        done_B=jnp.ones(rows, bool),
        said_BA=jnp.zeros((rows, new), jnp.int32),
        logprobs_BA=jnp.zeros((rows, new)),
        seen_BV=jnp.zeros((rows, config.language.table_rows), bool),
        keys_B=jax.vmap(jax.random.key)(jnp.zeros(rows, jnp.uint32)),
        temperature_B=jnp.zeros(rows),
    )


@partial(jax.jit, static_argnums=0)
def encode(graph: nnx.GraphDef, params: Params, frames_FHWC: Array) -> Float[Array, "M D"]:
    """Visual tokens of all frames in one sequence, and the end newline of families that have it."""
    model: VideoLMM = nnx.merge(graph, params)
    tokens_FND = model.encode_frames(frames_FHWC)
    flat = tokens_FND.reshape(-1, tokens_FND.shape[-1])
    end = model.newline[...] if hasattr(model, "newline") else jnp.zeros_like(flat[0])
    return jnp.concatenate([flat, end[None].astype(flat.dtype)])


@partial(jax.jit, static_argnums=(0, 1))
def prefill(
    graph: nnx.GraphDef,
    config: VideoLMMConfig,
    params: Params,
    visual_MD: Float[Array, "M D"],
    row: dict[str, Int[Array, " P"]],
) -> Prefix:
    """The keys of a prompt's beginning, a `prompt_row` padded on the left."""
    model: VideoLMM = nnx.merge(graph, params)
    one = {name: array[None] for name, array in row.items()}
    empty = empty_cache(config.language, 1, one["tokens"].shape[1], visual_MD.dtype)
    _, cache = model(
        one["tokens"],
        visual_MD[None],
        one["visual_index"],
        one["positions"],
        row_layout(one["branch"]),
        empty,
    )
    assert cache is not None
    branch_P = row["branch"]
    length = jnp.sum(branch_P != PAD_BRANCH)
    k, v = constrain_cache(cache.k[:, 0], rows=False), constrain_cache(cache.v[:, 0], rows=False)
    return Prefix(k=k, v=v, branch_P=branch_P, length=length)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def admit(
    graph: nnx.GraphDef,
    end_token: int,
    sampling: SamplingConfig,
    params: Params,
    slots: Slots,
    prefix: Prefix,
    slot: Int[Array, ""],
    row: dict[str, Int[Array, " T"]],
    seed: Array,
    temperature: Float[Array, ""],
) -> Slots:
    """A new prompt in a slot: what follows the prefix, padded on the left; its first token said.

    `row` is a `prompt_row` of text alone, its positions counted from its own first token.
    """
    model: VideoLMM = nnx.merge(graph, params)
    suffix = row["tokens"].shape[0]
    branch_S = slots.branch_BS[slot].at[:suffix].set(row["branch"])
    positions_1T = (row["positions"] + prefix.length)[None]
    own = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, slot, 1, axis=1), slots.cache)
    layout = _layout(prefix, jnp.arange(suffix)[None], row["branch"][None], branch_S[None])
    x_1TD = model.language.embed(row["tokens"][None])
    hidden, own = model.language(x_1TD, positions_1T, layout, _with(own, prefix), 0)
    put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=1)
    key = jax.random.key(seed)
    fresh = replace(
        slots,
        cache=_laid(jax.tree.map(put, slots.cache, _without(own))),
        branch_BS=slots.branch_BS.at[slot].set(branch_S),
        place_B=slots.place_B.at[slot].set(suffix),
        position_B=slots.position_B.at[slot].set(positions_1T[0, -1]),
        count_B=slots.count_B.at[slot].set(0),
        done_B=slots.done_B.at[slot].set(False),
        said_BA=slots.said_BA.at[slot].set(end_token),
        logprobs_BA=slots.logprobs_BA.at[slot].set(0.0),
        seen_BV=slots.seen_BV.at[slot].set(False),
        keys_B=slots.keys_B.at[slot].set(key),
        temperature_B=slots.temperature_B.at[slot].set(temperature),
    )
    rows = slots.done_B.shape[0]
    logits_BV = jnp.broadcast_to(model.logits(hidden[:, -1]), (rows, fresh.seen_BV.shape[1]))
    return _say(fresh, logits_BV, jnp.arange(rows) == slot, end_token, sampling)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def decode(
    graph: nnx.GraphDef,
    end_token: int,
    sampling: SamplingConfig,
    params: Params,
    slots: Slots,
    prefix: Prefix,
    steps: Int[Array, ""],
) -> Slots:
    """At most `steps` tokens more in every slot; fewer once all are done."""
    model: VideoLMM = nnx.merge(graph, params)

    def unfinished(carry: tuple[Array, Slots]) -> Array:
        step, slots = carry
        return (step < steps) & ~jnp.all(slots.done_B)

    def one(carry: tuple[Array, Slots]) -> tuple[Array, Slots]:
        step, slots = carry
        rows = jnp.arange(slots.done_B.shape[0])
        last_B = slots.said_BA[rows, jnp.maximum(slots.count_B - 1, 0)]
        position_B = slots.position_B + 1
        # A slot that is done goes on in its last place, for nobody.
        place_B = jnp.minimum(slots.place_B, slots.branch_BS.shape[1] - 1)
        query = jnp.full((len(rows), 1), PROMPT_BRANCH, jnp.int32)
        layout = _layout(prefix, place_B[:, None], query, slots.branch_BS)
        x_B1D = model.language.embed(last_B[:, None])
        hidden, cache = model.language(
            x_B1D, position_B[:, None], layout, _with(slots.cache, prefix), place_B
        )
        active_B = ~slots.done_B
        slots = replace(
            slots,
            cache=_laid(_without(cache)),
            place_B=jnp.where(active_B, slots.place_B + 1, slots.place_B),
            position_B=jnp.where(active_B, position_B, slots.position_B),
        )
        logits_BV = model.logits(hidden[:, -1])
        return step + 1, _say(slots, logits_BV, active_B, end_token, sampling)

    return jax.lax.while_loop(unfinished, one, (jnp.int32(0), slots))[1]


def _laid(cache: KVCache) -> KVCache:
    """On a mesh: rows over its batch axes, heads over `tensor`, the same after every step."""
    return jax.tree.map(constrain_cache, cache)


def _say(
    slots: Slots,
    logits_BV: Float[Array, "B V"],
    active_B: Bool[Array, " B"],
    end_token: int,
    sampling: SamplingConfig,
) -> Slots:
    """The next token of the active slots."""
    token_B = choose(
        logits_BV, slots.seen_BV, slots.keys_B, slots.count_B, slots.temperature_B, sampling
    )
    rows = jnp.arange(len(token_B))
    at_B = jnp.where(active_B, slots.count_B, slots.said_BA.shape[1])  # past the end: not written
    count_B = slots.count_B + active_B
    told_B = logprob_of(logits_BV, token_B)
    full_B = count_B >= slots.said_BA.shape[1]
    return replace(
        slots,
        said_BA=slots.said_BA.at[rows, at_B].set(token_B, mode="drop"),
        logprobs_BA=slots.logprobs_BA.at[rows, at_B].set(told_B, mode="drop"),
        seen_BV=slots.seen_BV.at[rows, token_B].max(active_B),
        count_B=count_B,
        done_B=slots.done_B | (active_B & ((token_B == end_token) | full_B)),
    )


def _layout(
    prefix: Prefix,
    order_BT: Int[Array, "B T"],
    branch_BT: Int[Array, "B T"],
    branch_BS: Int[Array, "B S"],
) -> Layout:
    """Queries at these own places; keys of the prefix, then own ones."""
    rows, own = branch_BS.shape
    shared = len(prefix.branch_P)
    order_k = jnp.concatenate([jnp.full(shared, BEFORE_ALL), jnp.arange(own)]).astype(jnp.int32)
    branch_P = jnp.broadcast_to(prefix.branch_P, (rows, shared))
    return Layout(
        order_q=order_BT.astype(jnp.int32),
        branch_q=branch_BT,
        order_k=jnp.broadcast_to(order_k, (rows, shared + own)),
        branch_k=jnp.concatenate([branch_P, branch_BS], axis=1),
    )


def _with(cache: KVCache, prefix: Prefix) -> KVCache:
    return replace(cache, shared_k=prefix.k, shared_v=prefix.v)


def _without(cache: KVCache | None) -> KVCache:
    assert cache is not None
    return replace(cache, shared_k=None, shared_v=None)
