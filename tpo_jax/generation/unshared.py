"""Prompts that share nothing: the slow, plain way to generate, which the engine must equal.

Every row is prefilled whole and has all of its keys for itself. `tpo plan` compiles it too, since
it takes the most memory that as many prompts can.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from tpo_jax.attention import Layout, row_layout
from tpo_jax.generation.sampling import SamplingConfig, choose, logprob_of
from tpo_jax.models.language import empty_cache
from tpo_jax.models.video_lmm import Params, VideoLMM, VideoLMMConfig


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def generate_each(
    graph: nnx.GraphDef,
    config: VideoLMMConfig,
    end_token: int,
    sampling: SamplingConfig,
    params: Params,
    visual_MD: Float[Array, "M D"],
    rows: dict[str, Array],
    seeds_B: Array,
) -> tuple[Int[Array, "B A"], Float[Array, "B A"]]:
    """Answers [B, max_new_tokens], `end_token` after their end, and their tokens' log-probs.

    Args:
      graph: the model's structure.
      config: the model.
      end_token: of an answer.
      sampling: for all rows.
      params: the model's.
      visual_MD: visual tokens that all rows' `visual_index` point into.
      rows: stacked `prompt_row`s, [B, T].
      seeds_B: uint32, of the rows.
    """
    model: VideoLMM = nnx.merge(graph, params)
    batch, prompt = rows["tokens"].shape
    new = sampling.max_new_tokens
    keys_B = jax.vmap(jax.random.key)(seeds_B)
    # Order keeps a query from seeing cache places not written yet, so all of them may be branch 0.
    branch_k = jnp.concatenate([rows["branch"], jnp.zeros((batch, new), jnp.int32)], axis=1)
    order_k = jnp.broadcast_to(jnp.arange(prompt + new, dtype=jnp.int32), (batch, prompt + new))
    empty = empty_cache(config.language, batch, prompt + new, visual_MD.dtype)
    hidden, cache = model(
        rows["tokens"],
        jnp.broadcast_to(visual_MD, (batch, *visual_MD.shape)),
        rows["visual_index"],
        rows["positions"],
        row_layout(rows["branch"]),
        empty,
    )
    logits_BV = model.logits(hidden[:, -1])
    temperature_B = jnp.full(batch, sampling.temperature)

    def say(logits_BV, seen_BV, step):  # type: ignore[no-untyped-def]
        step_B = jnp.full(batch, step)
        token_B = choose(logits_BV, seen_BV, keys_B, step_B, temperature_B, sampling)
        return token_B, seen_BV.at[jnp.arange(batch), token_B].set(True)

    first, seen_BV = say(logits_BV, jnp.zeros(logits_BV.shape, bool), 0)
    answers = jnp.full((batch, new), end_token, jnp.int32).at[:, 0].set(first)
    logprobs = jnp.zeros((batch, new)).at[:, 0].set(logprob_of(logits_BV, first))

    def unfinished(carry):  # type: ignore[no-untyped-def]
        step, token_B, *_ = carry
        return (step < new - 1) & jnp.any(token_B != end_token)

    def decode(carry):  # type: ignore[no-untyped-def]
        step, token_B, answers, logprobs, seen_BV, cache = carry
        layout = Layout(
            order_q=jnp.full((batch, 1), prompt + step, jnp.int32),
            branch_q=jnp.zeros((batch, 1), jnp.int32),
            order_k=order_k,
            branch_k=branch_k,
        )
        positions = rows["positions"][:, -1:] + 1 + step
        x_B1D = model.language.embed(token_B[:, None])
        hidden, cache = model.language(x_B1D, positions, layout, cache, prompt + step)
        logits_BV = model.logits(hidden[:, -1])
        said, seen_BV = say(logits_BV, seen_BV, step + 1)
        ended = token_B == end_token
        said = jnp.where(ended, end_token, said)
        told = jnp.where(ended, 0.0, logprob_of(logits_BV, said))
        answers, logprobs = answers.at[:, step + 1].set(said), logprobs.at[:, step + 1].set(told)
        return step + 1, said, answers, logprobs, seen_BV, cache

    start = (jnp.int32(0), first, answers, logprobs, seen_BV, cache)
    _, _, answers, logprobs, _, _ = jax.lax.while_loop(unfinished, decode, start)
    return answers, logprobs
