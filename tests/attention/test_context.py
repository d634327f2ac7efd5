"""Attention over a mesh, and the choice of a kernel, against dense attention on one device."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.attention.rows import ROWS, assert_equal, random_inputs, row, value_and_grads
from tpo_jax.attention import attend, row_kernel, row_layout, row_multiple
from tpo_jax.attention.context import from_zigzag, to_zigzag, zigzag_owner, zigzag_places
from tpo_jax.attention.dense import attend_dense
from tpo_jax.parallel.mesh import MeshConfig, make_mesh

SPREAD = P(("data", "fsdp"), "context", "tensor")


def over_mesh(config: MeshConfig, kernel: Any, branches: Any, inputs: Any, room: int) -> Any:
    """`attend` with its arrays spread over the mesh."""
    mesh = make_mesh(config)
    placed = [jax.device_put(array, NamedSharding(mesh, SPREAD)) for array in inputs]
    with jax.set_mesh(mesh):
        return value_and_grads(partial(attend, kernel=kernel), branches, placed, room)


CASES = [
    ("dense", MeshConfig(data=2, fsdp=1, context=4)),
    ("blockwise", MeshConfig(fsdp=2, context=2, tensor=2)),
    ("splash", MeshConfig(fsdp=1, context=4, tensor=2)),
]
PRODUCTS = [
    (
        kernel,
        MeshConfig(data=data, fsdp=8 // (data * context * tensor), context=context, tensor=tensor),
    )
    for kernel in ("dense", "blockwise", "splash")
    for data in (1, 2)
    for context in (1, 2, 4, 8)
    for tensor in (1, 2)
    if 8 % (data * context * tensor) == 0
]


@pytest.mark.parametrize(
    ("kernel", "mesh"),
    CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in PRODUCTS if case not in CASES],
    ids=str,
)
def test_over_a_mesh_attention_is_the_same(kernel: Any, mesh: MeshConfig) -> None:
    """Padding in front, between and behind; answers that lie on several devices."""
    prompt, room, rows = 128, 96, 8
    tokens = prompt + 2 * room
    branches = [
        row(5 * number, prompt - 5 * number, (70, 90 - number), room) for number in range(rows)
    ]
    inputs = random_inputs(tokens, rows=rows)
    found = over_mesh(mesh, kernel, branches, inputs, room)
    assert_equal(found, value_and_grads(attend_dense, branches, inputs, room))


def test_tokens_and_rows_that_do_not_divide_over_the_mesh() -> None:
    prompt, room = 95, 41
    branches = [row(3, prompt - 3, (30, 41), room)] * ROWS
    inputs = random_inputs(prompt + 2 * room)
    mesh = make_mesh(MeshConfig(fsdp=4, context=2))
    with jax.set_mesh(mesh):
        found = value_and_grads(partial(attend), branches, inputs, room)
    assert_equal(found, value_and_grads(attend_dense, branches, inputs, room))


# ------------------------------------------------------------------------------ the zigzag


@pytest.mark.parametrize("ways", [1, 2, 3, 4, 5, 8])
def test_the_zigzag_goes_there_and_back(ways: int) -> None:
    auto = (AxisType.Auto,)
    mesh = jax.make_mesh((ways,), ("context",), axis_types=auto, devices=jax.devices()[:ways])
    tokens = np.arange(ways * 6)[None]
    spread = P(None, "context")

    def through(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return to_zigzag(x, ways), from_zigzag(to_zigzag(x, ways), ways)

    there, back = jax.jit(jax.shard_map(through, mesh=mesh, in_specs=spread, out_specs=spread))(
        tokens
    )
    np.testing.assert_array_equal(back, tokens)
    places = [zigzag_places(device, ways, tokens.size) for device in range(ways)]
    np.testing.assert_array_equal(np.asarray(there)[0], np.concatenate(places))


@pytest.mark.parametrize("ways", [2, 4, 16])
def test_the_zigzag_shares_the_work_out_evenly(ways: int) -> None:
    tokens = 64 * ways
    work = [int(np.sum(zigzag_places(device, ways, tokens) + 1)) for device in range(ways)]
    assert max(work) == min(work)
    assert [zigzag_owner(chunk, 2) for chunk in range(4)] == [0, 1, 1, 0]


# ------------------------------------------------------------------------------ the choice


def test_the_platform_chooses_the_kernel_and_what_rows_are_rounded_to() -> None:
    assert row_kernel("cpu") == row_kernel("gpu") == "blockwise"
    assert row_kernel("tpu") == "splash"
    assert row_multiple("cpu", 1) == 1
    assert row_multiple("cpu", 4) == 8
    assert row_multiple("tpu", 1) == 512
    assert row_multiple("tpu", 16) == 32 * 512


def test_short_rows_and_other_keys_are_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _ = random_inputs(128)
    layout = row_layout(jnp.zeros((ROWS, 128), jnp.int32))
    monkeypatch.setattr("tpo_jax.attention.choice.named_kernel", None)
    np.testing.assert_array_equal(attend(q, k, v, layout), attend_dense(q, k, v, layout))
    np.testing.assert_array_equal(attend(q, k, v), attend_dense(q, k, v))
