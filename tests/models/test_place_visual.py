"""Visual tokens at their places, against the plain gather and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_jax.models.place_visual import place_visual

ROWS, TOKENS, VISUAL, WIDTH = 2, 12, 6, 3


def plain(visual_BMD: jax.Array, index_BT: jax.Array) -> jax.Array:
    taken = jnp.take_along_axis(visual_BMD, jnp.maximum(index_BT, 0)[..., None], axis=1)
    return jnp.where(index_BT[..., None] >= 0, taken, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shown=st.tuples(*[st.integers(0, VISUAL)] * ROWS))
def test_it_is_a_gather_forward_and_backward(seed: int, shown: tuple[int, ...]) -> None:
    """Each visual token at one place of a row or at none, in any order, and none twice."""
    rng = np.random.default_rng(seed)
    index = np.full((ROWS, TOKENS), -1, np.int32)
    for row, count in enumerate(shown):
        places = rng.permutation(TOKENS)[:count]
        index[row, places] = rng.permutation(VISUAL)[:count]
    visual = jnp.asarray(rng.normal(size=(ROWS, VISUAL, WIDTH)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(ROWS, TOKENS, WIDTH)), jnp.float32)
    outs = []
    for place in (place_visual, plain):
        out, back = jax.vjp(lambda x, place=place: place(x, jnp.asarray(index)), visual)
        outs.append((out, back(weight)[0]))
    for found, expected in zip(*outs, strict=True):
        np.testing.assert_array_equal(found, expected)
