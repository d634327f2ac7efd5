"""From projected patches to the tokens of a frame: pool the grid, then place newlines.

Source: `get_2dPool` and `prepare_inputs_labels_for_multimodal` of the LLaVA-Video and LongVA
models.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from einops import rearrange, reduce
from jaxtyping import Array, Float

POOLS = ("bilinear", "average", "max")
NEWLINES = ("grid", "frame", "one_token", "none")


@dataclass(frozen=True, kw_only=True)
class VisualTokensConfig:
    """How the patch grid of a frame becomes tokens.

    `unused_newline`: the newline is "none", and yet the checkpoint stores a newline. The model
    keeps it, for lossless export; it is part of no token, and its gradient is zero.
    """

    pool: str
    stride: int
    newline: str
    unused_newline: bool = False

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f"pool is {self.pool!r}; known: {', '.join(POOLS)}")
        if self.newline not in NEWLINES:
            raise ValueError(f"newline is {self.newline!r}; known: {', '.join(NEWLINES)}")
        if self.unused_newline and self.newline != "none":
            raise ValueError(f"unused_newline goes with newline 'none', not {self.newline!r}")

    @property
    def stores_newline(self) -> bool:
        """Whether the model has a newline parameter."""
        return self.newline != "none" or self.unused_newline

    def pooled_side(self, side: int) -> int:
        """Edge of the pooled grid: rounded up by bilinear, cut off by average and max."""
        return math.ceil(side / self.stride) if self.pool == "bilinear" else side // self.stride

    def tokens_per_frame(self, side: int) -> int:
        """Visual tokens of one frame, its newlines included."""
        pooled = self.pooled_side(side)
        return pooled * pooled + {"grid": pooled, "frame": 1}.get(self.newline, 0)

    def tokens_per_video(self, side: int, frames: int) -> int:
        """Visual tokens of a whole video of `frames` frames."""
        return frames * self.tokens_per_frame(side) + int(self.newline == "one_token")


def pool_patches(
    patches_FPD: Float[Array, "F P D"], config: VisualTokensConfig
) -> Float[Array, "F h w D"]:
    """Pool a square, row-major grid of patches by `config.stride`."""
    side = math.isqrt(patches_FPD.shape[1])
    grid = rearrange(patches_FPD, "F (h w) D -> F h w D", h=side)
    pooled = config.pooled_side(side)
    if config.pool == "bilinear":
        shape = (grid.shape[0], pooled, pooled, grid.shape[3])
        # The authors interpolate without antialiasing, which is not the default here.
        return jax.image.resize(grid, shape, "bilinear", antialias=False)
    read = pooled * config.stride  # the last row and column of an odd grid are dropped
    how = "mean" if config.pool == "average" else "max"
    return reduce(
        grid[:, :read, :read],
        "F (h s) (w t) D -> F h w D",
        how,
        s=config.stride,
        t=config.stride,
    )


def frame_tokens(
    patches_FPD: Float[Array, "F P D"],
    newline_D: Float[Array, " D"] | None,
    config: VisualTokensConfig,
) -> Float[Array, "F N D"]:
    """Tokens of each frame, row by row; a newline after every row (grid) or frame (frame)."""
    grid = pool_patches(patches_FPD, config)
    frames, rows, _, width = grid.shape
    if config.newline == "grid":
        assert newline_D is not None
        column = jnp.broadcast_to(newline_D, (frames, rows, 1, width))
        grid = jnp.concatenate([grid, column], axis=2)
    tokens = rearrange(grid, "F h w D -> F (h w) D")
    if config.newline == "frame":
        assert newline_D is not None
        last = jnp.broadcast_to(newline_D, (frames, 1, width))
        tokens = jnp.concatenate([tokens, last], axis=1)
    return tokens


def video_tokens(
    tokens_BFND: Float[Array, "B F N D"],
    newline_D: Float[Array, " D"] | None,
    config: VisualTokensConfig,
) -> Float[Array, "B M D"]:
    """All frames of each video in one sequence; `one_token` adds a single newline at its end."""
    flat = rearrange(tokens_BFND, "B F N D -> B (F N) D")
    if config.newline != "one_token":
        return flat
    assert newline_D is not None
    end = jnp.broadcast_to(newline_D, (flat.shape[0], 1, flat.shape[2]))
    return jnp.concatenate([flat, end], axis=1)
