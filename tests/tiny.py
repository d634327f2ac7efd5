"""A tiny model, random rows, and batches of them, for tests that need no weights."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
from flax import nnx

from data_pipelines.batches import RowShape, make_row, stack
from data_pipelines.prompts import Prompt
from tests.random_params import initial_params
from tests.small_model import small_model_json
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model
from tpo_jax.preference.logprobs import row_mask

VOCABULARY = 96


def tiny_model(seed: int = 0, **language: object) -> tuple[VideoLMMConfig, nnx.GraphDef, Params]:
    """The demo's architecture with two layers, in fp32; the parameters are the caller's own."""
    config, graph, params = _made(seed, **language)
    # On the host: a training step may give the buffers it is handed away.
    return config, graph, jax.tree.map(np.copy, params)


@cache
def _made(seed: int, **language: object) -> tuple[VideoLMMConfig, nnx.GraphDef, Params]:
    config = config_from_json(small_model_json(VOCABULARY))
    settings = {"width": 32, "mlp_width": 48, "head_width": 8, "layers": 2, "remat": "none"}
    config = replace(
        config,
        language=replace(config.language, **(settings | language)),  # type: ignore[arg-type]
        vision=replace(config.vision, width=16, mlp_width=24, layers=2, layers_used=2),
    )
    graph, _ = abstract_model(config)
    return config, graph, initial_params(config, seed)


def random_prompt(rng: np.random.Generator, visual: int, before: int, after: int) -> Prompt:
    """Random text around `visual` visual tokens."""
    length = before + visual + after
    tokens = rng.integers(3, VOCABULARY, length).astype(np.int32)
    index = np.full(length, -1, np.int32)
    index[before : before + visual] = np.arange(visual)
    return Prompt(tokens=tokens, visual_index=index)


def random_batch(
    config: VideoLMMConfig,
    seed: int,
    rows: int,
    *,
    frames: int = 3,
    branches: int = 2,
    prompt_targets: int = 0,
) -> dict[str, np.ndarray]:
    """Rows of pairs with prompts and answers of different lengths, and reference log-probs.

    With `prompt_targets` the last tokens of each prompt are supervised, at most 3 of them; of every
    second prompt one less.
    """
    rng = np.random.default_rng(seed)
    visual = config.tokens_per_video(frames)
    shape = RowShape(prompt_tokens=visual + 16, answer_tokens=8, prompt_targets=prompt_targets)
    made = []
    for number in range(rows):
        prompt = random_prompt(rng, visual, 2, int(rng.integers(3, 13)))
        learned = max(min(prompt_targets, 3) - number % 2, 0)
        supervised = np.arange(len(prompt.tokens)) >= len(prompt.tokens) - learned
        prompt = replace(prompt, supervised=supervised)
        answers = [
            rng.integers(3, VOCABULARY, int(rng.integers(1, 9))).tolist() for _ in range(branches)
        ]
        made.append(make_row(prompt, answers, shape))
    size = config.vision.image_size
    batch = stack(made)
    batch["frames"] = rng.integers(0, 256, (rows, frames, size, size, 3), dtype=np.uint8)
    mask = np.asarray(row_mask(batch))
    batch["reference_logprobs"] = (-rng.uniform(0, 4, mask.shape) * mask).astype(np.float32)
    return batch
