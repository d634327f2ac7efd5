"""Per-token log-probs of the answers of a row, from hidden states at supervised positions only."""

from collections.abc import Mapping

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from tpo_jax.attention import row_layout
from tpo_jax.models.video_lmm import VideoLMM

Batch = Mapping[str, Array]


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


def answer_logprobs(model: VideoLMM, batch: Batch) -> Float[Array, "B K A"]:
    """Log-prob of every answer token, fp32, zero where `answer_mask` is zero.

    `batch` holds the arrays of `data_pipelines.batches.make_row` stacked, and `frames`, uint8
    [B, F, H, W, 3], encoded once for all answers of a row.
    """
    visual_BMD = model.encode_videos(batch["frames"])
    hidden_BTD, _ = model(
        batch["tokens"],
        visual_BMD,
        batch["visual_index"],
        batch["positions"],
        row_layout(batch["branch"]),
    )
    branches, answer_tokens = batch["answers"].shape[1:]
    states_BKAD = predicting_states(hidden_BTD, branches, answer_tokens)
    logits_BKAV = model.logits(states_BKAD)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits_BKAV, batch["answers"])
    return -nll * batch["answer_mask"]
