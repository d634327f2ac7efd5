"""The model of tests that need none in particular: LLaVA-Video's make-up, with a head apart."""

from typing import Any

from tpo_jax.models.presets import demo_model_json


def small_model_json(vocab_rows: int = 450) -> dict[str, Any]:
    """A config.json. Sixteen patches a frame, pooled to a grid of four; the head is not tied."""
    content = demo_model_json(vocab_rows)
    tower = content["vision_config"] | {"patch_size": 14}
    return content | {"tie_word_embeddings": False, "vision_config": tower}
