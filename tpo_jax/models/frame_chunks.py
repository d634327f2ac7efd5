"""Frames in chunks, so that memory does not grow with the length of a video."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, UInt8

from tpo_jax.parallel.mesh import FRAME_AXES, constrain_frames, constrain_second, frame_ways


def map_frames(
    encode: Callable[[UInt8[Array, "F H W 3"]], Float[Array, "F N D"]],
    frames_FHWC: UInt8[Array, "F H W 3"],
    per_chunk: int,
) -> Float[Array, "F N D"]:
    """`encode` of all frames, on each device `per_chunk` at a time or a few less; 0: all at once.

    `encode` must treat each frame by itself.
    """
    frames, ways = frames_FHWC.shape[0], frame_ways()
    count = -(-frames // (per_chunk * ways)) if per_chunk > 0 else 1
    if count <= 1:
        return encode(constrain_frames(frames_FHWC))
    # A device's frames lie side by side; a chunk takes every C-th of all: some of each device.
    padding = -frames % (count * ways)
    padded_FHWC = jnp.pad(frames_FHWC, ((0, padding), (0, 0), (0, 0), (0, 0)))
    chunks_CFHWC = rearrange(padded_FHWC, "(F C) H W c -> C F H W c", C=count)
    chunks_CFHWC = constrain_second(chunks_CFHWC, FRAME_AXES)
    tokens_CFND = jax.lax.map(
        lambda chunk_FHWC: constrain_frames(encode(constrain_frames(chunk_FHWC))), chunks_CFHWC
    )
    tokens_CFND = constrain_second(tokens_CFND, FRAME_AXES)
    tokens_FND = rearrange(tokens_CFND, "C F N D -> (F C) N D")
    return constrain_frames(tokens_FND)[:frames]
