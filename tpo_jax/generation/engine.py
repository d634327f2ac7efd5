"""Prefill and decode with a KV cache, for many prompts on one video.

The frames of a video are encoded once (`encode`). A prompt's `visual_index` points into the tokens
of all those frames, so a segment, a sparse set and the whole video are three gathers of the same
array. Prompts are padded on the left, so all rows of a batch write the same place of their caches.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from tpo_jax.attention import Layout, row_layout
from tpo_jax.generation.sampling import SamplingConfig, choose, logprob_of
from tpo_jax.models.language import empty_cache
from tpo_jax.models.video_lmm import Params, VideoLMM, VideoLMMConfig

FRAME_BUCKET = 32  # frames are encoded in multiples of this, so that few shapes are compiled


class Engine:
    """Encode and generate for one model."""

    def __init__(
        self,
        config: VideoLMMConfig,
        graph: nnx.GraphDef,
        params: Params,
        *,
        end_token: int,
        sampling: SamplingConfig,
    ):
        self.config = config
        self.params = params
        self._graph = graph
        self._end_token = end_token
        self._sampling = sampling

    def encode(self, frames_FHWC: np.ndarray) -> Float[Array, "M D"]:
        """Visual tokens of all frames (uint8 [F, S, S, 3]) in one sequence, M = F' * N + 1.

        F' is F rounded up to a bucket; the last token is the end newline of `one_token` families
        and is otherwise not referred to.
        """
        pad = -len(frames_FHWC) % FRAME_BUCKET
        padded = np.pad(frames_FHWC, ((0, pad), (0, 0), (0, 0), (0, 0)))
        return _encode(self._graph, self.params, padded)

    def visual_index(self, positions_F: np.ndarray, stored_frames: int) -> np.ndarray:
        """Where the tokens of the frames at `positions` lie in what `encode` gave; int32 [M']."""
        per_frame = self.config.tokens_per_frame
        starts = np.asarray(positions_F, np.int32)[:, None] * per_frame
        index = (starts + np.arange(per_frame, dtype=np.int32)).reshape(-1)
        if self.config.visual_tokens.newline == "one_token":
            padded = -(-stored_frames // FRAME_BUCKET) * FRAME_BUCKET
            index = np.append(index, np.int32(padded * per_frame))
        return index

    def generate(
        self, visual_MD: Float[Array, "M D"], rows: dict[str, np.ndarray], seeds_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answers to prompt rows of one video: int32 [B, max_new_tokens], end_token after the end.

        And the log-prob of every token that was said, fp32 of the same shape, zero after the end.

        `rows` are stacked `data_pipelines.batches.prompt_row`s; `seeds_B` uint32, used only when
        sampling.
        """
        said = _generate(
            self._graph,
            self.config,
            self._end_token,
            self._sampling,
            self.params,
            visual_MD,
            rows,
            seeds_B,
        )
        answers_BA, logprobs_BA = jax.device_get(said)
        return answers_BA, logprobs_BA


# Compiled once for all engines of one structure: base and trained policy share them.
@partial(jax.jit, static_argnums=0)
def _encode(graph: nnx.GraphDef, params: Params, frames_FHWC: Array) -> Float[Array, "M D"]:
    model: VideoLMM = nnx.merge(graph, params)
    tokens_FND = model.encode_frames(frames_FHWC)
    flat = tokens_FND.reshape(-1, tokens_FND.shape[-1])
    end = model.newline[...] if hasattr(model, "newline") else jnp.zeros_like(flat[0])
    return jnp.concatenate([flat, end[None].astype(flat.dtype)])


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generate(
    graph: nnx.GraphDef,
    config: VideoLMMConfig,
    end_token: int,
    sampling: SamplingConfig,
    params: Params,
    visual_MD: Float[Array, "M D"],
    rows: dict[str, Array],
    seeds_B: Array,
) -> tuple[Int[Array, "B A"], Float[Array, "B A"]]:
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
    first = choose(logits_BV, keys_B, jnp.int32(0), sampling.temperature)
    answers = jnp.full((batch, new), end_token, jnp.int32).at[:, 0].set(first)
    logprobs = jnp.zeros((batch, new)).at[:, 0].set(logprob_of(logits_BV, first))

    def unfinished(carry):  # type: ignore[no-untyped-def]
        step, token_B, *_ = carry
        return (step < new - 1) & jnp.any(token_B != end_token)

    def decode(carry):  # type: ignore[no-untyped-def]
        step, token_B, answers, logprobs, cache = carry
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
        said = choose(logits_BV, keys_B, step + 1, sampling.temperature)
        ended = token_B == end_token
        said = jnp.where(ended, end_token, said)
        told = jnp.where(ended, 0.0, logprob_of(logits_BV, said))
        answers, logprobs = answers.at[:, step + 1].set(said), logprobs.at[:, step + 1].set(told)
        return step + 1, said, answers, logprobs, cache

    start = (jnp.int32(0), first, answers, logprobs, cache)
    _, _, answers, logprobs, _ = jax.lax.while_loop(unfinished, decode, start)
    return answers, logprobs
