"""The mesh of devices: `data` copies parameters, `fsdp` shards them, `tensor` splits layers."""

from dataclasses import dataclass

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tpo_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; -1 on one axis takes what the others leave."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: int | None = None) -> Mesh:
    """The mesh over all devices (or the first `devices`).

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    count = jax.device_count() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    if sizes.count(-1) > 1:
        raise InputError("config.mesh: only one axis may be -1")
    if -1 in sizes:
        rest = -sizes[0] * sizes[1] * sizes[2]
        sizes[sizes.index(-1)] = max(count // max(rest, 1), 1)
    if sizes[0] * sizes[1] * sizes[2] != count:
        named = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        raise InputError(f"config.mesh: {named} does not multiply to the {count} devices there are")
    # Explicit axes are the default; here the layout inside a step is left to the compiler.
    auto = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=auto, devices=jax.devices()[:count])


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(mesh: Mesh, rows: int) -> None:
    """Raises InputError when the rows of a batch do not divide over the mesh."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % ways:
        raise InputError(
            f"config.train.batch_pairs={rows} does not divide over data*fsdp={ways} devices; "
            f"use a multiple of {ways}"
        )
