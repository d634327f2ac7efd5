"""Attention in blocks against attention with every score written out."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attention.rows import (
    GROUPS,
    KEY_HEADS,
    ROWS,
    Attention,
    assert_equal,
    random_inputs,
    row,
    value_and_grads,
)
from tests.jaxpr_arrays import every_array
from tests.quick_compile import QUICK
from tpo_jax.attention import row_layout
from tpo_jax.attention.blockwise import attend_blockwise
from tpo_jax.attention.dense import attend_dense


@cache
def blocks_of(block: int, groups: int) -> Attention:
    return partial(attend_blockwise, block=block, groups=groups)


@settings(max_examples=20, deadline=None)
@given(
    data=st.data(),
    shape=st.sampled_from([(1, 1, 2, 1), (23, 6, 8, 6), (30, 9, 16, 2), (37, 5, 7, 3)]),
)
def test_blocks_equal_dense(data: st.DataObject, shape: tuple[int, int, int, int]) -> None:
    """Padding anywhere, answers of any length, blocks that divide the row and such that do not."""
    prompt, room, block, groups = shape
    branches = []
    for _ in range(ROWS):
        padding = data.draw(st.integers(0, prompt - 1))
        answers = data.draw(st.tuples(st.integers(0, room), st.integers(0, room)))
        branches.append(row(padding, prompt - padding, answers, room))
    inputs = random_inputs(prompt + 2 * room)
    found = value_and_grads(blocks_of(block, groups), branches, inputs, room)
    assert_equal(found, value_and_grads(attend_dense, branches, inputs, room))


def test_a_block_of_nothing_but_padding_is_finite() -> None:
    layout = row_layout(jnp.asarray([row(20, 10, (3, 4), 5)] * ROWS, jnp.int32))

    def weighted(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(attend_blockwise(q, k, v, layout, block=8))

    step = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1, 2)), compiler_options=QUICK)
    value, grads = step(*random_inputs(40)[:3])
    assert all(np.all(np.isfinite(array)) for array in (value, *grads))


def test_bf16_is_as_near_to_the_truth_as_dense_is() -> None:
    branches = [row(3, 50, (9, 6), 10)] * ROWS
    inputs = random_inputs(73)
    exact = value_and_grads(attend_dense, branches, inputs, 10)
    half = [array.astype(jnp.bfloat16) for array in inputs]
    errors: dict[str, list[float]] = {}
    for attention in (attend_dense, blocks_of(16, 4)):
        found = value_and_grads(attention, branches, half, 10)
        for name, expected in exact.items():
            error = np.asarray(found[name], np.float32) - expected
            errors.setdefault(name, []).append(float(np.sqrt(np.mean(error**2))))
    for name, (dense, blocks) in errors.items():
        assert blocks < 1.25 * dense, name


def test_memory_grows_with_the_tokens_and_not_with_their_square() -> None:
    def largest(attention: Callable[..., jax.Array], tokens: int) -> int:
        layout = row_layout(jnp.zeros((1, tokens), jnp.int32))
        step = jax.grad(lambda q, k, v: jnp.sum(attention(q, k, v, layout)), argnums=(0, 1, 2))
        jaxpr = jax.make_jaxpr(step)(*random_inputs(tokens, rows=1)[:3])
        return max(aval.size for aval in every_array(jaxpr.jaxpr))

    longer, shorter = (largest(attend_blockwise, tokens) for tokens in (16_384, 4_096))
    assert longer <= 4 * shorter
    assert largest(attend_dense, 1024) == KEY_HEADS * GROUPS * 1024**2  # it would be seen
