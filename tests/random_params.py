"""Random parameters made by numpy: no compilation, and no bias or norm that is silently zero."""

import jax
import numpy as np

from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model


def random_params(config: VideoLMMConfig, seed: int = 0) -> Params:
    """fp32 parameters of std 0.1 around 0, or around 1 for the scales of norms."""
    rng = np.random.default_rng(seed)

    def draw(keys: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        centre = float(keys[-1].key == "scale")
        return rng.normal(centre, 0.1, leaf.shape).astype(np.float32)

    _, shapes = abstract_model(config)
    return jax.tree_util.tree_map_with_path(draw, shapes)
