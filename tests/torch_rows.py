"""Our logits on one row of token ids in which a token stands for every visual token."""

from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from tests.quick_compile import QUICK
from tpo_jax.attention import row_layout
from tpo_jax.interop.reader import Checkpoint
from tpo_jax.models.video_lmm import Params, VideoLMM, abstract_model


def our_video_logits(
    checkpoint: Checkpoint, frames_FHWC: np.ndarray, tokens_T: np.ndarray, video_token: int
) -> np.ndarray:
    """Logits [T, V] of a row with one video."""
    graph, _ = abstract_model(checkpoint.config)
    shown = tokens_T == video_token
    visual_index = np.where(shown, np.cumsum(shown) - 1, -1).astype(np.int32)
    positions = np.arange(len(tokens_T), dtype=np.int32)

    @partial(jax.jit, compiler_options=QUICK)
    def forward(params: Params, frames: Any, tokens: Any, index: Any, positions: Any) -> Any:
        model: VideoLMM = nnx.merge(graph, params)
        visual = model.encode_videos(frames[None])
        layout = row_layout(positions[None] * 0)
        hidden, _ = model(tokens[None], visual, index[None], positions[None], layout)
        return model.logits(hidden)[0]

    return np.asarray(forward(checkpoint.params, frames_FHWC, tokens_T, visual_index, positions))
