"""Attention of rows that lie over the devices of a mesh, their tokens over `context`.

Each device has the queries of two short runs of a row, one from its front and one from its back:
chunks i and 2c - 1 - i of 2c (zigzag). A late query sees more keys than an early one, so devices
with runs of consecutive tokens would wait for the last of them, which has almost twice the mean
work. Keys and values are gathered; there are few heads of them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from tpo_jax.attention.layout import PAD_BRANCH, Layout
from tpo_jax.parallel.mesh import BATCH_AXES, TOKEN_AXIS, ways_of

Kernel = Callable[[jax.Array, jax.Array, jax.Array, Layout], jax.Array]
HEAD_AXIS = "tensor"


def attend_over_mesh(
    kernel: Kernel,
    mesh: AbstractMesh,
    q_BTHE: Float[Array, "B T H E"],
    k_BTKE: Float[Array, "B T K E"],
    v_BTKE: Float[Array, "B T K E"],
    layout: Layout,
) -> Float[Array, "B T H E"]:
    """`kernel` on each device's own rows, queries and heads.

    Args:
      kernel: from queries at any places of a row, all its keys and values, and a layout of the two.
      mesh: what the arrays lie on. Rows that do not divide over it are computed on all devices.
      q_BTHE: queries of whole rows in order, k_BTKE and v_BTKE: their keys and values.
      layout: with its `row`.
    """
    ways = mesh.shape[TOKEN_AXIS]
    tokens = q_BTHE.shape[1]
    room = -tokens % (2 * ways) if ways > 1 else 0
    if room:
        q_BTHE, k_BTKE, v_BTKE = (
            jnp.pad(x, ((0, 0), (0, room), (0, 0), (0, 0))) for x in (q_BTHE, k_BTKE, v_BTKE)
        )
    branch_BT = jnp.pad(layout.branch_q, ((0, 0), (0, room)), constant_values=PAD_BRANCH)
    rows = BATCH_AXES if q_BTHE.shape[0] % ways_of(mesh, BATCH_AXES) == 0 else None
    spread = P(rows, TOKEN_AXIS, HEAD_AXIS)

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(spread, spread, spread, P(rows)),
        out_specs=spread,
        check_vma=False,
    )
    def attend_here(q, k, v, branch_BT):  # type: ignore[no-untyped-def]
        order_BT = jnp.broadcast_to(jnp.arange(branch_BT.shape[1]), branch_BT.shape)
        own = Layout(order_q=order_BT, branch_q=branch_BT, order_k=order_BT, branch_k=branch_BT)
        if ways == 1:
            return kernel(q, k, v, own)
        order_T = zigzag_places(jax.lax.axis_index(TOKEN_AXIS), ways, branch_BT.shape[1])
        own = Layout(
            order_q=jnp.broadcast_to(order_T, (branch_BT.shape[0], order_T.shape[0])),
            branch_q=branch_BT[:, order_T],
            order_k=order_BT,
            branch_k=branch_BT,
        )
        k, v = (jax.lax.all_gather(x, TOKEN_AXIS, axis=1, tiled=True) for x in (k, v))
        return from_zigzag(kernel(to_zigzag(q, ways), k, v, own), ways)

    return attend_here(q_BTHE, k_BTKE, v_BTKE, branch_BT)[:, :tokens]


def zigzag_places(device: Int[Array, ""] | int, ways: int, tokens: int) -> Int[Array, " T"]:
    """The places of the queries that device `device` of `ways` has: chunks i and 2c - 1 - i."""
    width = tokens // (2 * ways)
    chunk = jnp.arange(width, dtype=jnp.int32)
    return jnp.concatenate([device * width + chunk, (2 * ways - 1 - device) * width + chunk])


def zigzag_owner(chunk: int, ways: int) -> int:
    """The device that has chunk `chunk` of 2 * `ways`."""
    return min(chunk, 2 * ways - 1 - chunk)


def to_zigzag(x_BT: jax.Array, ways: int) -> jax.Array:
    """[B, T / c, ...] of consecutive tokens -> of this device's two runs. Within a `shard_map`.

    Consecutive tokens of device i are chunks 2i and 2i + 1. The even chunks of all devices go to
    different devices, and so do the odd ones: two permutations.
    """
    even, odd = jnp.split(x_BT, 2, axis=1)
    even = jax.lax.ppermute(even, TOKEN_AXIS, _moves(0, ways))
    odd = jax.lax.ppermute(odd, TOKEN_AXIS, _moves(1, ways))
    # Of chunks i and 2c - 1 - i one is even, and it is the first where i is.
    first_is_even = jax.lax.axis_index(TOKEN_AXIS) % 2 == 0
    return jnp.concatenate(
        [jnp.where(first_is_even, even, odd), jnp.where(first_is_even, odd, even)], axis=1
    )


def from_zigzag(x_BT: jax.Array, ways: int) -> jax.Array:
    """The way back of `to_zigzag`."""
    first, second = jnp.split(x_BT, 2, axis=1)
    first_is_even = jax.lax.axis_index(TOKEN_AXIS) % 2 == 0
    even = jnp.where(first_is_even, first, second)
    odd = jnp.where(first_is_even, second, first)
    back = [[(to, here) for here, to in _moves(parity, ways)] for parity in (0, 1)]
    return jnp.concatenate(
        [
            jax.lax.ppermute(x, TOKEN_AXIS, moves)
            for x, moves in zip((even, odd), back, strict=True)
        ],
        axis=1,
    )


def _moves(parity: int, ways: int) -> list[tuple[int, int]]:
    """(from, to) of the chunks 2i + `parity` of devices i."""
    return [(here, zigzag_owner(2 * here + parity, ways)) for here in range(ways)]
