"""Per-token log-probs of a row, from hidden states at supervised places only.

The vocabulary is taken in chunks, so that scores of all tokens over all of it never exist at once,
neither forward nor backward.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jaxtyping import Array, Float, Int

from tpo_jax.attention import Layout, row_layout
from tpo_jax.models.chunks import count_chunks
from tpo_jax.models.video_lmm import VideoLMM

Batch = Mapping[str, Any]  # arrays of the host or of a device

# The widest chunk of the vocabulary. Narrower ones save memory and give smaller products.
CHUNK_COLUMNS = 8192


# ------------------------------------------------------------------------------------- the row


def row_mask(batch: Batch) -> Float[Array, "B K N"]:
    """1 where `row_logprobs` has a log-prob: N = S + A, the prompt's targets, then the answer's."""
    prompt_BKS = repeat(
        jnp.asarray(batch["prompt_mask"]), "B S -> B K S", K=batch["answers"].shape[1]
    )
    return jnp.concatenate([prompt_BKS, batch["answer_mask"]], axis=-1)


def row_logprobs(
    model: VideoLMM, batch: Batch, *, columns: int = CHUNK_COLUMNS
) -> Float[Array, "B K N"]:
    """Log-prob of every supervised token, fp32, zero where `row_mask` is zero.

    N = S + A: first the S targets in the prompt, which are the same for every answer and computed
    once, then the A places of the answer.

    Args:
      model: in the compute dtype.
      batch: the arrays of `data_pipelines.batches.make_row` stacked, and `frames`, uint8
        [B, F, H, W, 3], encoded once for all answers of a row.
      columns: the most of the vocabulary that is scored at once.
    """
    visual_BMD = model.encode_videos(batch["frames"])
    hidden_BTD, _ = model(
        batch["tokens"],
        visual_BMD,
        batch["visual_index"],
        batch["positions"],
        batch_layout(batch),
    )
    logprobs_BN = token_logprobs(
        model.language.head_kernel(),
        supervised_states(hidden_BTD, batch),
        supervised_targets(batch),
        vocab_rows=model.config.language.vocab_rows,
        columns=columns,
    )
    answers, prompt_targets = batch["answers"].shape[1], batch["prompt_targets"].shape[1]
    prompt_BKS = repeat(logprobs_BN[:, :prompt_targets], "B S -> B K S", K=answers)
    answer_BKA = rearrange(logprobs_BN[:, prompt_targets:], "B (K A) -> B K A", K=answers)
    return jnp.where(row_mask(batch) > 0, jnp.concatenate([prompt_BKS, answer_BKA], axis=-1), 0.0)


def batch_layout(batch: Batch) -> Layout:
    """Who sees whom in the rows of a batch."""
    answers, answer = batch["answers"].shape[1:]
    return row_layout(batch["branch"], answers=answers, answer=answer)


def predicting_states(
    hidden_BTD: Float[Array, "B T D"], branches: int, answer_tokens: int
) -> Float[Array, "B K A D"]:
    """The states that predict each answer token: the prompt's last, then the answer's own."""
    prompt = hidden_BTD.shape[1] - branches * answer_tokens
    last_B1D = hidden_BTD[:, prompt - 1 : prompt]
    states = []
    for k in range(branches):
        start = prompt + k * answer_tokens
        own = hidden_BTD[:, start : start + answer_tokens - 1]
        states.append(jnp.concatenate([last_B1D, own], axis=1))
    return jnp.stack(states, axis=1)


def supervised_states(hidden_BTD: Float[Array, "B T D"], batch: Batch) -> Float[Array, "B N D"]:
    """The states that predict the targets: N = S + K * A, the prompt's, then those of each answer.

    Nothing else of the row goes through the head.
    """
    prompt_BSD = jnp.take_along_axis(hidden_BTD, batch["prompt_places"][..., None], axis=1)
    answers_BKAD = predicting_states(hidden_BTD, *batch["answers"].shape[1:])
    return jnp.concatenate([prompt_BSD, rearrange(answers_BKAD, "B K A D -> B (K A) D")], axis=1)


def supervised_targets(batch: Batch) -> Int[Array, "B N"]:
    """The ids that `supervised_states` predict, in the same order."""
    answers_BN = rearrange(jnp.asarray(batch["answers"]), "B K A -> B (K A)")
    return jnp.concatenate([batch["prompt_targets"], answers_BN], axis=1)


# ------------------------------------------------------------------------- the vocabulary in chunks


def token_logprobs(
    kernel_DV: Float[Array, "D V"],
    states: Float[Array, "*N D"],
    targets: Int[Array, "*N"],
    *,
    vocab_rows: int,
    columns: int = CHUNK_COLUMNS,
) -> Float[Array, "*N"]:
    """Log-softmax of `states @ kernel` at the targets, fp32.

    Chunk i of c holds every c-th row of the vocabulary, from the i-th on. So each chunk is spread
    over the devices as the whole vocabulary is, and none has to be sent a part of it.

    Args:
      kernel_DV: of the head; for a tied model the embedding, transposed.
      states: in the same dtype as the kernel; products are summed in fp32.
      targets: int32, each less than `vocab_rows`.
      vocab_rows: rows from here on are padding and get no probability.
      columns: the most of the vocabulary that is scored at once.
    """
    count = count_chunks(kernel_DV.shape[1], columns)
    kernel_DV = jnp.pad(kernel_DV, ((0, 0), (0, -kernel_DV.shape[1] % count)))
    chunks_CDW = rearrange(kernel_DV, "D (W C) -> C D W", C=count)
    places_W = jnp.arange(chunks_CDW.shape[2], dtype=targets.dtype)
    # The gradient of what a loop only reads is summed in its own dtype, which must not be bf16.
    states_fp32 = states.astype(jnp.float32)

    @jax.checkpoint
    def score_chunk(carry, chunk):  # type: ignore[no-untyped-def]
        top, total, target_score = carry
        number, kernel_DW = chunk
        scores = jnp.matmul(
            states_fp32.astype(states.dtype), kernel_DW, preferred_element_type=jnp.float32
        )
        rows_W = places_W * count + number
        scores = jnp.where(rows_W < vocab_rows, scores, -jnp.inf)
        # A sum and no gather: each device looks among its own columns.
        is_target = rows_W == targets[..., None]
        target_score += jnp.sum(jnp.where(is_target, scores, 0.0), axis=-1)
        # It shifts the exponents and changes nothing else: no gradient goes through it.
        new_top = jnp.maximum(top, jax.lax.stop_gradient(jnp.max(scores, axis=-1)))
        total = total * jnp.exp(top - new_top)
        total += jnp.sum(jnp.exp(scores - new_top[..., None]), axis=-1)
        return (new_top, total, target_score), None

    zeros = jnp.zeros(targets.shape, jnp.float32)
    # Row 0 is in the first chunk, so that `top` is finite after it, whatever else is padding.
    start = jnp.full(targets.shape, -jnp.inf), zeros, zeros
    numbers_C = jnp.arange(count, dtype=targets.dtype)
    (top, total, target_score), _ = jax.lax.scan(score_chunk, start, (numbers_C, chunks_CDW))
    return target_score - (top + jnp.log(total))
