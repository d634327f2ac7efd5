"""The vocabulary in chunks against all of it at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.closeness import assert_close
from tests.quick_compile import QUICK
from tpo_jax.models.chunks import count_chunks
from tpo_jax.preference.logprobs import token_logprobs


@pytest.mark.parametrize(
    ("rows", "columns", "chunks"),
    [
        (93, 8192, 1),
        (8192, 8192, 1),
        (96, 32, 3),
        (96, 33, 3),
        (96, 31, 4),
        (152_064, 8192, 22),
        (97, 32, 4),  # a prime: the caller pads
        (151_643, 8192, 19),
    ],
)
def test_how_many_chunks(rows: int, columns: int, chunks: int) -> None:
    assert count_chunks(rows, columns) == chunks


@given(st.integers(1, 400), st.integers(1, 50))
def test_chunks_are_narrow_enough_and_not_too_many(rows: int, columns: int) -> None:
    count = count_chunks(rows, columns)
    assert -(-rows // count) <= columns
    assert count < 2 * -(-rows // columns)
    if any(rows % n == 0 for n in range(-(-rows // columns), count)):
        raise AssertionError("fewer chunks would do")


def plain_logprobs(
    kernel: jax.Array, states: jax.Array, targets: jax.Array, rows: int
) -> jax.Array:
    logprobs = jax.nn.log_softmax(states @ kernel[:, :rows])
    return jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0]


CUTS = [
    (96, 96, 96),
    (96, 96, 32),
    (96, 93, 32),
    (96, 40, 12),  # half of every chunk is padding
    (16, 5, 2),  # some chunks are nothing but padding
    (97, 97, 25),  # no divisor
    (96, 96, 1),
]


@pytest.mark.parametrize(
    ("table", "rows", "columns", "tied"),
    [
        *((*cut, False) for cut in CUTS),
        (96, 93, 32, True),
        *(pytest.param(*cut, True, marks=pytest.mark.slow) for cut in CUTS if cut != (96, 93, 32)),
    ],
)
def test_chunks_equal_one_softmax(table: int, rows: int, columns: int, tied: bool) -> None:
    rng = np.random.default_rng(table + rows + columns)
    # Scores of both signs up to about 50: a sum of exponents that is not shifted would overflow.
    states = rng.normal(0, 4, (3, 5, 8)).astype(np.float32)
    weight = rng.normal(0, 4, (table, 8) if tied else (8, table)).astype(np.float32)
    # The first row of the vocabulary and, twice, the last are among the targets.
    ids = rng.integers(0, rows, (3, 5)).astype(np.int32)
    ids[0, 0], ids[2, 4], ids[1, 1] = 0, rows - 1, rows - 1
    targets = jnp.asarray(ids)
    counts = rng.normal(size=targets.shape).astype(np.float32)

    def ours(weight: jax.Array, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        kernel = weight.T if tied else weight
        found = token_logprobs(kernel, states, targets, vocab_rows=rows, columns=columns)
        return jnp.sum(found * counts), found

    def theirs(weight: jax.Array, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = plain_logprobs(weight.T if tied else weight, states, targets, rows)
        return jnp.sum(found * counts), found

    (found, grads), (expected, plain_grads) = (
        (value[1], grads)
        for value, grads in (
            jax.jit(jax.value_and_grad(one, argnums=(0, 1), has_aux=True), compiler_options=QUICK)(
                weight, states
            )
            for one in (ours, theirs)
        )
    )
    assert found.dtype == jnp.float32
    assert_close(found, expected, "log-probs")
    for name, one, other in zip(("weight", "states"), grads, plain_grads, strict=True):
        assert_close(one, other, name)


def test_bf16_states_get_a_gradient_summed_in_fp32() -> None:
    """Against fp32 on the same rounded numbers: as near as one rounding of the products is."""
    rng = np.random.default_rng(0)
    states = jnp.asarray(rng.normal(size=(64, 32)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(0, 0.3, (32, 4096)), jnp.bfloat16)
    targets = jnp.asarray(rng.integers(0, 4096, 64), jnp.int32)

    def ours(states: jax.Array, kernel: jax.Array, columns: int) -> jax.Array:
        return token_logprobs(kernel, states, targets, vocab_rows=4096, columns=columns).sum()

    exact = jax.grad(ours)(states.astype(jnp.float32), kernel.astype(jnp.float32), 4096)
    errors = []
    for columns in (4096, 16):
        grad = jax.jit(jax.grad(ours), static_argnums=2)(states, kernel, columns)
        assert grad.dtype == jnp.bfloat16
        errors.append(float(jnp.sqrt(jnp.mean((grad.astype(jnp.float32) - exact) ** 2))))
    # 256 chunks are no less exact than one; summed in bf16 they are off eight times as far.
    assert errors[1] < 1.5 * errors[0]
