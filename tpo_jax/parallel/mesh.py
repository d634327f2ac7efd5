"""The mesh of devices, how a batch lies on it, and how activations are kept there.

`data` copies the state; `fsdp` and `context` shard it, and split rows and their tokens; `tensor`
splits layers. Rows are spread over data and fsdp, the tokens of a row over context.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tpo_jax.errors import InputError

AXES = ("data", "fsdp", "context", "tensor")
BATCH_AXES = ("data", "fsdp")
TOKEN_AXIS = "context"
FRAME_AXES = (*BATCH_AXES, TOKEN_AXIS)
# Arrays of a batch whose second axis is spread over context. All others are spread by rows only.
ROW_ARRAYS = ("tokens", "visual_index", "positions", "branch")
FRAMES = "frames"


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; -1 on one axis takes what the others leave."""

    data: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: int | None = None) -> Mesh:
    """The mesh over all devices (or the first `devices`), filled by `fill_mesh`.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    there = jax.devices()[:devices]
    slices = count_slices(there)
    where = f"{len(there)} devices there are"
    return lay_mesh(fill_mesh(config, len(there), slices, where), there, slices)


def make_host_mesh(config: MeshConfig) -> Mesh:
    """The mesh over this process's devices alone: `tensor` as configured, the others over fsdp.

    Raises:
      InputError: `tensor` does not divide them.
    """
    there = jax.local_devices()
    where = f"{len(there)} devices of a host"
    return lay_mesh(fill_mesh(MeshConfig(tensor=config.tensor), len(there), 1, where), there, 1)


def count_slices(devices: Sequence[Any]) -> int:
    """How many TPU slices the devices belong to. Other devices count as one."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def fill_mesh(config: MeshConfig, devices: int, slices: int, where: str) -> MeshConfig:
    """The sizes of all axes: -1 takes what the others leave.

    Several slices are joined by `data` alone. Where it is left at 1, it becomes their number.

    Raises:
      InputError: the sizes do not multiply to `devices`, or slices to a part of `data`; `where`
        says what devices these are.
    """
    if slices > 1 and config.data == 1:
        config = replace(config, data=slices)
    sizes = mesh_sizes(config)
    for axis, size in sizes.items():
        if size < 1 and size != -1:
            raise InputError(f"config.mesh.{axis}={size}: give 1 or more, or -1 for what is left")
    unset = [axis for axis, size in sizes.items() if size == -1]
    if len(unset) > 1:
        raise InputError("config.mesh: only one axis may be -1")
    for axis in unset:
        sizes[axis] = max(devices // -math.prod(sizes.values()), 1)
    if math.prod(sizes.values()) != devices:
        named = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise InputError(f"config.mesh: {named} does not multiply to the {where}")
    if sizes["data"] % slices:
        raise InputError(
            f"config.mesh.data={sizes['data']} does not divide over the {slices} slices of the "
            f"{where}; only data goes between slices, so make it a multiple of them"
        )
    return MeshConfig(**sizes)


def mesh_sizes(config: MeshConfig) -> dict[str, int]:
    """Sizes by axis, in the order of the mesh."""
    return {axis: getattr(config, axis) for axis in AXES}


def lay_mesh(config: MeshConfig, devices: Sequence[Any], slices: int) -> Mesh:
    """The (filled) mesh over devices: neighbours are near, and only `data` goes between slices."""
    sizes = mesh_sizes(config)
    if slices > 1:
        laid = mesh_utils.create_hybrid_device_mesh(
            list({**sizes, "data": config.data // slices}.values()),
            list({**dict.fromkeys(AXES, 1), "data": slices}.values()),
            devices,
            allow_split_physical_axes=True,
        )
    else:
        # An axis may be a part of one of the slice's own, such as 8 in 4 x 4 x 4.
        laid = mesh_utils.create_device_mesh(
            list(sizes.values()), devices, allow_split_physical_axes=True
        )
    # Explicit axes are the default; here the layout inside a step is left to the compiler.
    return Mesh(np.asarray(laid), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data and fsdp."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_shardings(mesh: Mesh, batch: Mapping[str, Any]) -> dict[str, NamedSharding]:
    """A sharding for every array of a batch (arrays or shapes), by its name.

    Rows lie over data and fsdp. The tokens of a row lie over context; its frames do too, if their
    number divides over it.
    """

    def spec(name: str, shape: tuple[int, ...]) -> P:
        if name in ROW_ARRAYS or (name == FRAMES and shape[1] % mesh.shape[TOKEN_AXIS] == 0):
            return P(BATCH_AXES, TOKEN_AXIS)
        return P(BATCH_AXES)

    return {name: NamedSharding(mesh, spec(name, leaf.shape)) for name, leaf in batch.items()}


def host_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """Which of so many rows lie on devices of this process, ascending: all it has to load."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[where] for where in slices if where]))


def place_batch(mesh: Mesh, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """A host batch on the devices, each array as `batch_shardings` has it.

    With several processes each gives the rows that `host_rows` names, and all are one batch.

    Raises:
      InputError: rows or tokens do not divide over the mesh.
    """
    here, tokens = batch["tokens"].shape
    ways = ways_of(mesh, BATCH_AXES)
    rows = here * ways // len(host_rows(mesh, ways))
    check_batch(mesh, rows)
    check_row(mesh, tokens)
    shardings = batch_shardings(mesh, batch)
    if rows == here:
        return jax.device_put(dict(batch), shardings)
    known = host_rows(mesh, rows)

    def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        def part(where: tuple[slice, ...] | None) -> np.ndarray:
            assert where is not None
            first, *others = where
            return array[np.searchsorted(known, np.arange(rows)[first])][:, *others]

        return jax.make_array_from_callback((rows, *array.shape[1:]), sharding, part)

    return {name: place(array, shardings[name]) for name, array in batch.items()}


def check_batch(mesh: Mesh, rows: int) -> None:
    """Raises InputError when the rows of a batch do not divide over the mesh."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % ways:
        raise InputError(
            f"config.train.batch_pairs={rows} does not divide over data*fsdp={ways} devices; "
            f"use a multiple of {ways}"
        )


def check_row(mesh: Mesh, tokens: int) -> None:
    """Raises InputError when the tokens of a row, T = P + K * A, do not divide over context."""
    ways = mesh.shape[TOKEN_AXIS]
    if tokens % ways:
        raise InputError(
            f"config.mesh.context={ways} does not divide the {tokens} tokens of a row (prompt and "
            f"answers, padded); choose a context that does, such as {math.gcd(tokens, ways)}"
        )


def constrain_rows(x: jax.Array) -> jax.Array:
    """Ask the compiler to keep [B, T, ...] where its rows and tokens are, each feature whole.

    Without it the compiler may spread the features as the parameters are spread, and move
    activations, which are many, instead of parameters. Only under `jax.set_mesh`; elsewhere it does
    nothing. An axis that does not divide is left to the compiler.
    """
    return _constrain(x, BATCH_AXES, TOKEN_AXIS)


def constrain_frames(x: jax.Array) -> jax.Array:
    """The same for frames [F, ...] of all rows: over every axis but the one that splits layers."""
    return _constrain(x, FRAME_AXES)


def constrain_second(x: jax.Array, axes: str | tuple[str, ...]) -> jax.Array:
    """The same for an array whose second axis is spread over `axes`, and whose first is not."""
    return _constrain(x, (), axes)


def constrain_cache(x: jax.Array, *, rows: bool = True) -> jax.Array:
    """The same for keys or values [L, B, S, K, E]; without `rows` [L, S, K, E], a prefix."""
    return _constrain(x, (), *((BATCH_AXES,) if rows else ()), (), "tensor")


def frame_ways() -> int:
    """Over how many devices `constrain_frames` spreads frames; 1 where no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else ways_of(mesh, FRAME_AXES)


def _constrain(x: jax.Array, *axes: str | tuple[str, ...]) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    spec = [
        axis if size % ways_of(mesh, axis) == 0 else P.UNCONSTRAINED
        for size, axis in zip(x.shape, axes, strict=False)
    ]
    return jax.lax.with_sharding_constraint(x, P(*spec))


def ways_of(mesh: Any, axes: str | tuple[str, ...] | None) -> int:
    """Into how many parts an array's axis is cut that lies over these mesh axes."""
    if axes is None:
        return 1
    return math.prod(mesh.shape[axis] for axis in ([axes] if isinstance(axes, str) else axes))
