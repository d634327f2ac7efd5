"""Attention in blocks against attention with every score written out."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.closeness import assert_close
from tests.jaxpr_arrays import every_array
from tests.quick_compile import QUICK
from tpo_jax.attention import PAD_BRANCH, attend, row_kernel, row_layout
from tpo_jax.attention.blockwise import BLOCK_QUERIES, attend_blockwise
from tpo_jax.attention.dense import attend_dense
from tpo_jax.parallel.mesh import MeshConfig, make_mesh

Attention = Callable[..., jax.Array]

ROWS, KEY_HEADS, GROUPS, WIDTH = 2, 2, 3, 8


def row(padding: int, prompt: int, answers: tuple[int, int], room: int) -> list[int]:
    """Branches of a row: padding, a prompt, and answers each padded to `room`."""
    branches = [PAD_BRANCH] * padding + [0] * prompt
    for number, answer in enumerate(answers, start=1):
        branches += [number] * answer + [PAD_BRANCH] * (room - answer)
    return branches


def random_inputs(tokens: int, rows: int = ROWS) -> tuple[jax.Array, ...]:
    """Queries, keys and values, and a weight for each number that comes out."""
    rng = np.random.default_rng(tokens)
    heads = (KEY_HEADS * GROUPS, KEY_HEADS, KEY_HEADS, KEY_HEADS * GROUPS)
    # Scores of both signs up to about 30: a sum of exponents that is not shifted would overflow.
    shapes = [(rows, tokens, number, WIDTH) for number in heads]
    return tuple(jnp.asarray(rng.normal(0, 2, shape), jnp.float32) for shape in shapes)


@cache
def compiled(attention: Attention) -> Callable[..., Any]:
    """(branches, inputs) -> what comes out at tokens that are no padding, and gradients."""

    def weighted(q: jax.Array, k: jax.Array, v: jax.Array, weight: Any, branches: Any) -> Any:
        seen = (branches != PAD_BRANCH)[..., None, None]
        out = jnp.where(seen, attention(q, k, v, row_layout(branches)), 0)
        return jnp.sum(out * weight), out

    step = jax.value_and_grad(weighted, argnums=(0, 1, 2), has_aux=True)
    return jax.jit(step, compiler_options=QUICK)


def value_and_grads(attention: Attention, branches: Any, inputs: Any) -> dict[str, jax.Array]:
    """What comes out, and the gradient of a weighted sum of it."""
    (_, out), grads = compiled(attention)(*inputs, np.asarray(branches, np.int32))
    return dict(zip(("out", "q", "k", "v"), (out, *grads), strict=True))


def assert_equal(ours: dict[str, jax.Array], theirs: dict[str, jax.Array]) -> None:
    for name, expected in theirs.items():
        # A query that sees one key has no gradient; what goes in is of the order of 1.
        assert_close(ours[name], expected, name, max(1.0, float(np.max(np.abs(expected)))))


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
    found = value_and_grads(blocks_of(block, groups), branches, inputs)
    assert_equal(found, value_and_grads(attend_dense, branches, inputs))


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
    exact = value_and_grads(attend_dense, branches, inputs)
    half = [array.astype(jnp.bfloat16) for array in inputs]
    errors: dict[str, list[float]] = {}
    for attention in (attend_dense, blocks_of(16, 4)):
        found = value_and_grads(attention, branches, half)
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


# ------------------------------------------------------------------------------ which is chosen


def test_rows_on_one_device_each_are_cut_and_rows_over_several_are_not() -> None:
    assert row_kernel(1) == "blockwise"
    assert row_kernel(2) == "dense"


@pytest.mark.parametrize(
    "mesh",
    [MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(fsdp=4, context=2)],
    ids=["blockwise", "dense"],
)
def test_on_a_mesh_attention_is_the_same(mesh: MeshConfig) -> None:
    tokens = BLOCK_QUERIES + 32
    branches = [row(5, tokens - 45, (20, 15), 20)] * 4
    inputs = random_inputs(tokens, rows=4)
    found = make_mesh(mesh)
    spread = NamedSharding(found, P(("data", "fsdp"), "context", "tensor"))
    placed = [jax.device_put(array, spread) for array in inputs]
    with jax.set_mesh(found):
        ours = value_and_grads(partial(attend), branches, placed)  # traced anew for each mesh
    assert_equal(ours, value_and_grads(attend_dense, branches, inputs))
