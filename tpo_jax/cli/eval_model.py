"""A model as an evaluation protocol wants it: some of its settings overwritten."""

from dataclasses import replace
from typing import Literal

from jax.sharding import Mesh

from tpo_jax.api import LoadedModel, load
from tpo_jax.models.video_lmm import abstract_model

Pool = Literal["bilinear", "average", "max"]
PixelDtype = Literal["float32", "float16"]


def load_overridden(
    name: str,
    *,
    pool: Pool | None = None,
    pixel_dtype: PixelDtype = "float32",
    mesh: Mesh | None = None,
) -> LoadedModel:
    """`api.load`, then `override`."""
    return override(load(name, mesh=mesh), pool=pool, pixel_dtype=pixel_dtype)


def override(model: LoadedModel, *, pool: Pool | None, pixel_dtype: PixelDtype) -> LoadedModel:
    """The model with settings that harnesses overwrite; its parameters are the same arrays.

    Args:
      model: from `api.load`.
      pool: how a frame's patches are pooled; None leaves it as the checkpoint says. The number of
        visual tokens depends on it.
      pixel_dtype: what normalised pixels are rounded to.
    """
    tokens = model.config.visual_tokens
    config = replace(
        model.config,
        vision=replace(model.config.vision, pixel_dtype=pixel_dtype),
        visual_tokens=replace(tokens, pool=pool or tokens.pool),
    )
    graph, _ = abstract_model(config)
    return replace(model, config=config, graph=graph)
