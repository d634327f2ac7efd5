"""Visual tokens to their places in a row, by gathers alone, forward and backward."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@jax.custom_vjp
def place_visual(
    visual_BMD: Float[Array, "B M D"], index_BT: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Visual token `index_BT` at each place of a row, zeros where that is negative.

    A visual token must stand in a row at most once. What goes backward is then a gather too; the
    sum at repeated places that the plain form has would be sorted by place first, on TPU.
    """
    taken_BTD = jnp.take_along_axis(visual_BMD, jnp.maximum(index_BT, 0)[..., None], axis=1)
    return jnp.where(index_BT[..., None] >= 0, taken_BTD, 0)


def _forward(visual_BMD, index_BT):  # type: ignore[no-untyped-def]
    # A length is no array and cannot be kept; an array of no width can.
    return place_visual(visual_BMD, index_BT), (visual_BMD[0, :, :0], index_BT)


def _backward(kept, grad_BTD):  # type: ignore[no-untyped-def]
    tokens, index_BT = kept[0].shape[0], kept[1]
    grad_BMD = place_visual(grad_BTD, jax.vmap(lambda index_T: _places(index_T, tokens))(index_BT))
    return grad_BMD, None


def _places(index_T: Int[Array, " T"], tokens: int) -> Int[Array, " M"]:
    """For each visual token its place in the row, -1 if it has none."""
    places_T = jnp.arange(index_T.shape[0], dtype=jnp.int32)
    # Places without one write past the end, each somewhere else: no two write at one place.
    to_T = jnp.where(index_T >= 0, index_T, tokens + places_T)
    empty_M = jnp.full((tokens,), -1, jnp.int32)
    return empty_M.at[to_T].set(places_T, unique_indices=True, mode="drop")


place_visual.defvjp(_forward, _backward)
