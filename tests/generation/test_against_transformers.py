"""Greedy answers about a video are those of transformers' `generate`, token for token."""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.speed.generate_vs_torch import make_prompts, our_side, their_side
from benchmarks.speed.step_vs_torch import model_json
from tests.random_params import initial_params
from tpo_jax.interop.writer import write_checkpoint
from tpo_jax.models.checkpoint_config import config_from_json

TOKENS = 10


def test_every_token_is_the_same(tmp_path: Path) -> None:
    """Theirs encode and prefill every prompt by itself; ours share video and prefix."""
    arguments = argparse.Namespace(
        frames=5, questions=9, image=56, width=128, layers=2, vocabulary=512
    )
    content = model_json(arguments)
    config = config_from_json(content)
    before, prompts = make_prompts(arguments)
    frames = np.random.default_rng(1).integers(0, 256, (5, 56, 56, 3), np.uint8)
    params = initial_params(config, 0)
    write_checkpoint(tmp_path, config=config, params=params, json=content, dtype="float32")
    ours = our_side(tmp_path, frames, before, prompts, TOKENS)()
    theirs = their_side(tmp_path, content, frames, before, prompts, TOKENS)()
    assert ours == theirs
    assert len({tuple(answer) for answer in ours}) > 9  # questions and frames matter
