"""Splash attention, run without a TPU, against attention with every score written out."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attention.rows import ROWS, Attention, assert_equal, random_inputs, row, value_and_grads
from tests.jaxpr_arrays import every_array
from tpo_jax.attention import RowParts, row_layout
from tpo_jax.attention.dense import attend_dense
from tpo_jax.attention.splash import RowMask, _block_table, attend_splash, fitting_block

WIDTH = 64  # of a head; the chip's lanes are 128


@cache
def splash_of(parts: RowParts) -> Attention:
    return partial(attend_splash, parts=parts, block=128, interpret=True)


# Whole blocks, and rows that must be padded; answers that begin inside a block of the prompt's.
@pytest.mark.parametrize(
    "shape", [pytest.param((256, 64), marks=pytest.mark.slow), (150, 61), (40, 130)]
)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_splash_equals_dense(data: st.DataObject, shape: tuple[int, int]) -> None:
    prompt, room = shape
    parts = RowParts(prompt=prompt, answer=room, answers=2)
    branches = []
    for _ in range(ROWS):
        padding = data.draw(st.integers(0, prompt - 1))
        answers = data.draw(st.tuples(st.integers(0, room), st.integers(0, room)))
        branches.append(row(padding, prompt - padding, answers, room))
    inputs = random_inputs(parts.tokens, width=WIDTH)
    found = value_and_grads(splash_of(parts), branches, inputs, room)
    assert_equal(found, value_and_grads(attend_dense, branches, inputs, room))


@settings(max_examples=30, deadline=None)
@given(
    prompt=st.integers(0, 40),
    answer=st.integers(1, 20),
    answers=st.integers(0, 4),
    block=st.sampled_from([1, 3, 8]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_block_that_is_seen_is_computed(
    prompt: int, answer: int, answers: int, block: int, seed: int
) -> None:
    """Also where a block of queries is not of consecutive places, and no block is fetched amiss."""
    parts = RowParts(prompt=prompt, answer=answer, answers=answers)
    tokens = 120  # always: what is traced is compiled once
    order = np.random.default_rng(seed).permutation(tokens).astype(np.int32)
    places = np.arange(tokens)
    branch = np.where(places < prompt, 0, 1 + (places - prompt) // answer)
    causal = places[None, :] <= order[:, None]
    branch_q = branch[order][:, None]
    allowed = causal & ((branch[None] == 0) | (branch[None] == branch_q) | (answers < 2))
    inside = (order[:, None] < parts.tokens) & (places[None] < parts.tokens)
    mask = RowMask(parts)(jnp.asarray(order)[:, None], jnp.asarray(places)[None])
    np.testing.assert_array_equal(np.asarray(mask) & inside, allowed & inside)
    count = tokens // block
    seen = np.asarray(mask).reshape(count, block, count, block).any(axis=(1, 3))
    for by_key in (False, True):
        table = _block_table(
            RowMask(parts), jnp.asarray(order), block, tokens, block, by_key=by_key
        )
        computed = np.asarray(table.block_mask)[0] > 0
        assert np.all(computed[seen])
        own = np.arange(count)[:, None] if by_key else np.arange(count)[None]
        fetched = np.asarray(table.data_next)[0]
        np.testing.assert_array_equal(
            fetched[computed], np.broadcast_to(own, computed.shape)[computed]
        )
        assert fetched.min() >= 0 and fetched.max() < count


def test_blocks_of_the_other_answer_and_of_later_places_are_left_out() -> None:
    parts = RowParts(prompt=8, answer=8, answers=2)
    order = jnp.arange(24, dtype=jnp.int32)
    table = _block_table(RowMask(parts), order, 4, 24, 4, by_key=False)
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]
    np.testing.assert_array_equal(np.asarray(table.block_mask)[0], expected)


def test_the_widest_block_that_divides_is_taken() -> None:
    assert [fitting_block(tokens) for tokens in (28_672, 1536, 384, 100)] == [1024, 512, 128, 0]


@pytest.mark.parametrize("answers", [0, 1])
def test_a_row_of_one_branch_is_causal(answers: int) -> None:
    tokens = 200
    q, k, v, _ = random_inputs(tokens, width=WIDTH)
    layout = row_layout(jnp.zeros((ROWS, tokens), jnp.int32), answers=answers, answer=60)
    assert layout.row is not None
    found = attend_splash(q, k, v, layout, layout.row, block=128, interpret=True)
    np.testing.assert_allclose(found, attend_dense(q, k, v, layout), atol=2e-5)


def test_no_mask_is_made_of_pairs_of_tokens() -> None:
    """At 450,000 tokens the largest array beside queries and keys is the table of blocks."""
    tokens = 1024 * 440
    shape = jax.ShapeDtypeStruct((1, tokens, 1, 128), jnp.bfloat16)
    branch = jax.ShapeDtypeStruct((1, tokens), jnp.int32)

    def attend_row(q: jax.Array, k: jax.Array, v: jax.Array, branch: jax.Array) -> jax.Array:
        layout = row_layout(branch, answers=2, answer=512)
        assert layout.row is not None
        return jnp.sum(attend_splash(q, k, v, layout, layout.row).astype(jnp.float32))

    jaxpr = jax.make_jaxpr(jax.grad(attend_row, argnums=(0, 1, 2)))(shape, shape, shape, branch)
    widest = max(aval.size for aval in every_array(jaxpr.jaxpr))
    assert widest <= tokens * 128
    assert sum(np.size(value) for value in jaxpr.consts) < 1000
