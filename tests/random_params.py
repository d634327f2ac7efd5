"""Random parameters that take no long compilation."""

import jax
import numpy as np

from tests.quick_compile import QUICK
from tpo_jax.models import video_lmm
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model

_draw = jax.jit(video_lmm._draw_params, static_argnums=0, compiler_options=QUICK)


def random_params(config: VideoLMMConfig, seed: int = 0) -> Params:
    """fp32 parameters of std 0.1 around 0, or around 1 for the scales of norms, made by numpy.

    No bias or norm is silently zero.
    """
    rng = np.random.default_rng(seed)

    def draw(keys: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        centre = float(keys[-1].key == "scale")
        return rng.normal(centre, 0.1, leaf.shape).astype(np.float32)

    _, shapes = abstract_model(config)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def initial_params(config: VideoLMMConfig, seed: int) -> Params:
    """What `init_params` makes, on the host; that takes XLA ten seconds to compile."""
    return jax.tree.map(np.asarray, _draw(config, seed))
