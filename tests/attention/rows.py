"""Rows, random inputs, and a comparison of kernels: what tests of attention share."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.closeness import assert_close
from tests.quick_compile import QUICK
from tpo_jax.attention import PAD_BRANCH, row_layout

Attention = Callable[..., jax.Array]

ROWS, KEY_HEADS, GROUPS, WIDTH = 2, 2, 3, 8


def row(padding: int, prompt: int, answers: tuple[int, int], room: int) -> list[int]:
    """Branches of a row: padding, a prompt, and answers each padded to `room`."""
    branches = [PAD_BRANCH] * padding + [0] * prompt
    for number, answer in enumerate(answers, start=1):
        branches += [number] * answer + [PAD_BRANCH] * (room - answer)
    return branches


def random_inputs(
    tokens: int, rows: int = ROWS, key_heads: int = KEY_HEADS, width: int = WIDTH
) -> tuple[jax.Array, ...]:
    """Queries, keys and values, and a weight for each number that comes out."""
    rng = np.random.default_rng(tokens)
    heads = (key_heads * GROUPS, key_heads, key_heads, key_heads * GROUPS)
    # Scores of both signs up to about 30: a sum of exponents that is not shifted would overflow.
    shapes = [(rows, tokens, number, width) for number in heads]
    return tuple(jnp.asarray(rng.normal(0, 2, shape), jnp.float32) for shape in shapes)


@cache
def compiled(attention: Attention, room: int) -> Callable[..., Any]:
    """(branches, inputs) -> what comes out at tokens that are no padding, and gradients."""

    def weighted(q: jax.Array, k: jax.Array, v: jax.Array, weight: Any, branches: Any) -> Any:
        layout = row_layout(branches, answers=2, answer=room)
        seen = (branches != PAD_BRANCH)[..., None, None]
        out = jnp.where(seen, attention(q, k, v, layout), 0)
        return jnp.sum(out * weight), out

    step = jax.value_and_grad(weighted, argnums=(0, 1, 2), has_aux=True)
    return jax.jit(step, compiler_options=QUICK)


def value_and_grads(
    attention: Attention, branches: Any, inputs: Any, room: int
) -> dict[str, jax.Array]:
    """What comes out, and the gradient of a weighted sum of it; two answers of `room` places."""
    (_, out), grads = compiled(attention, room)(*inputs, np.asarray(branches, np.int32))
    return dict(zip(("out", "q", "k", "v"), (out, *grads), strict=True))


def assert_equal(ours: dict[str, jax.Array], theirs: dict[str, jax.Array]) -> None:
    for name, expected in theirs.items():
        # A query that sees one key has no gradient; what goes in is of the order of 1.
        assert_close(ours[name], expected, name, max(1.0, float(np.max(np.abs(expected)))))
