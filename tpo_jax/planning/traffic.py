"""What a compiled step moves: bytes between chips and to the host, read from its optimized HLO.

Numbers are per device and step. Loops are multiplied out, and an operation that the compiler splits
into a start, parts that run beside other work, and an end is counted once, at its start.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tpo_jax.planning.hlo_text import (
    ARRAY,
    CALLED,
    Computation,
    Instruction,
    count_bytes,
    count_trips,
    read_computations,
    replica_groups,
)

Network = Literal["ici", "dcn", "host"]

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Where copies between HBM and the host's memory show: memory space 5 is the host's.
COPIES = ("copy", "slice", "dynamic-slice", "dynamic-update-slice")
ON_HOST = "S(5)"
TO_HOST, FROM_HOST = "to-host", "from-host"


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One kind of transfer over one network, all operations alike taken together.

    Attributes:
      kind: of the collective; "to-host" or "from-host" for a copy.
      network: "ici" inside a slice, "dcn" between slices, "host" to the host's memory.
      bytes: a device sends in a step; for a collective as a ring does it.
      group: devices (over DCN: slices) that take part together.
      axes: of the mesh, that the group runs along; empty if not asked for or not found.
      blocking: it is not split into start and end: nothing else runs meanwhile.
    """

    kind: str
    network: Network
    bytes: float
    group: int = 1
    axes: tuple[str, ...] = ()
    blocking: bool = False


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """All transfers of a step; `unknown_loops` are loops whose trip count is not to be seen."""

    transfers: tuple[Transfer, ...] = ()
    unknown_loops: tuple[str, ...] = ()

    @property
    def by_kind(self) -> dict[str, float]:
        """Bytes by kind of collective, over ICI and DCN together."""
        between = [found for found in self.transfers if found.network != "host"]
        return {
            kind: sum(found.bytes for found in between if found.kind == kind)
            for kind in dict.fromkeys(found.kind for found in between)
        }

    def sum_bytes(self, network: Network, *, blocking: bool | None = None) -> float:
        """Bytes over one network; with `blocking`, only of transfers that are so."""
        found = [transfer for transfer in self.transfers if transfer.network == network]
        return sum(one.bytes for one in found if blocking in (None, one.blocking))

    @property
    def ici_bytes(self) -> float:
        """Sent to other chips of the slice."""
        return self.sum_bytes("ici")

    @property
    def dcn_bytes(self) -> float:
        """Sent to other slices."""
        return self.sum_bytes("dcn")

    @property
    def host_bytes(self) -> float:
        """To the host and back, both counted."""
        return self.sum_bytes("host")


def read_traffic(
    hlo_text: str,
    *,
    slice_of: Sequence[int] | None = None,
    mesh_shape: Mapping[str, int] | None = None,
    unknown_trips: int = 1,
) -> Traffic:
    """What a step moves, from `compiled.as_text()`.

    A TPU step over several slices says itself what goes between them (its groups are those of one
    slice); `slice_of` is for texts that do not.

    Args:
      hlo_text: optimized HLO of a TPU or CPU step.
      slice_of: the slice of each device, devices in the order of the mesh.
      mesh_shape: sizes of the mesh's axes, in order, to name the axes of each transfer.
      unknown_trips: how often a loop is taken to run that ends by what it computes.
    """
    computations, entry = read_computations(hlo_text)
    devices = re.search(r"num_partitions=(\d+)", hlo_text[:20000])
    reader = Reader(
        computations=computations,
        devices=int(devices[1]) if devices else 1,
        slice_of=slice_of,
        mesh_shape=mesh_shape,
        unknown_loops=[],
        unknown_trips=unknown_trips,
    )
    sums: dict[Transfer, float] = {}
    for transfer, times in reader.walk(entry, 1):
        key = replace(transfer, bytes=0)
        sums[key] = sums.get(key, 0.0) + times * transfer.bytes
    return Traffic(
        transfers=tuple(replace(key, bytes=total) for key, total in sums.items() if total),
        unknown_loops=tuple(dict.fromkeys(reader.unknown_loops)),
    )


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Walks a program and yields each transfer with how often it happens."""

    computations: Mapping[str, Computation]
    devices: int
    slice_of: Sequence[int] | None
    mesh_shape: Mapping[str, int] | None
    unknown_loops: list[str]
    unknown_trips: int

    def walk(self, name: str, times: int) -> Iterator[tuple[Transfer, int]]:
        """(transfer, times) of a computation and of all it calls."""
        computation = self.computations[name]
        for made in computation.values():
            if made.opcode == "while":
                trips = count_trips(made, computation, self.computations)
                body = dict(CALLED.findall(made.line))["body"].lstrip("%")
                inside = list(
                    self.walk(body, times * (self.unknown_trips if trips is None else trips))
                )
                if trips is None and inside:
                    self.unknown_loops.append(made.name)
                yield from inside
            elif made.opcode == "conditional":  # the branch that moves most
                names = re.findall(r"%([\w.\-]+)", made.line)
                branches = [list(self.walk(n, times)) for n in names if n in self.computations]
                yield from max(branches, key=lambda found: sum(t.bytes * n for t, n in found))
            elif made.opcode in ("fusion", "call", "async-start"):
                for key, called in CALLED.findall(made.line):
                    if key in ("calls", "to_apply"):
                        for found, often in self.walk(called.lstrip("%"), times):
                            blocking = found.blocking and made.opcode != "async-start"
                            yield replace(found, blocking=blocking), often
            else:
                scatters = name.startswith("all-reduce-scatter")
                for transfer in self.transfers(made, computation, scatters=scatters):
                    yield transfer, times

    def transfers(
        self, made: Instruction, computation: Computation, *, scatters: bool
    ) -> Iterator[Transfer]:
        """Transfers of one instruction. `scatters`: an all-reduce of which each keeps a part."""
        kind = made.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            if (
                "async_collective_fusion_config" in made.line
                and '"flag_start":"-1"' not in made.line
            ):
                return  # a later part of a chain; the first is counted
            kind = "reduce-scatter" if scatters and kind == "all-reduce" else kind
            groups = replica_groups(made.line) or [list(range(self.devices))]
            widest = max(groups, key=self.count_slices)
            yield from ring(
                kind,
                sum(count_bytes(computation[name].type) for name in made.operands),
                members=len(widest),
                slices=self.count_slices(widest),
                axes=self.name_axes(groups),
                blocking="-start" not in made.opcode
                and "async_collective_fusion_config" not in made.line,
            )
        elif made.opcode == "send" and "_xla_megascale_transfer_type" in made.line:
            kind = re.findall(r'_xla_megascale_transfer_type="(\w+)"', made.line)[0]
            kind = kind.lower().replace("_", "-").replace("one-to-one", "collective-permute")
            target = re.search(r'_xla_megascale_target="\{([\d,:]*)\}', made.line)
            listed = [part.split(":") for part in target[1].split(",")] if target else [["1", "2"]]
            slices = sum(int(part[-1]) - int(part[0]) + 1 for part in listed)
            size = count_bytes(computation[made.operands[0]].type)
            yield from ring(kind, size, members=slices, slices=slices, axes=(), blocking=False)
        elif kind in COPIES:
            yield from host_copy(kind, made, computation)

    def count_slices(self, group: Sequence[int]) -> int:
        """How many slices a group lies in."""
        return len({self.slice_of[device] for device in group}) if self.slice_of else 1

    def name_axes(self, groups: Sequence[Sequence[int]]) -> tuple[str, ...]:
        """The axes of the mesh along which the devices of any group differ."""
        mesh = self.mesh_shape or {}
        places = [np.unravel_index(group, tuple(mesh.values())) for group in groups if mesh]
        return tuple(
            axis
            for number, axis in enumerate(mesh)
            if any(len(set(place[number])) > 1 for place in places)
        )


def ring(
    kind: str, size: int, *, members: int, slices: int, axes: tuple[str, ...], blocking: bool
) -> Iterator[Transfer]:
    """What a device sends for an operand of `size` bytes, inside its slice and between slices.

    Inside a slice as a ring does it. Between slices each device exchanges its own part with its
    like in the others, after or before the slice's own ring.
    """
    inside = members // slices
    ways = (slices - 1) / slices
    ici, dcn = {
        "all-gather": (slices * (inside - 1) * size, (slices - 1) * size),
        "all-reduce": (2 * size * (inside - 1) / inside, 2 * size / inside * ways),
        "reduce-scatter": (size * (inside - 1) / inside, size / inside * ways),
        "all-to-all": (size * (inside - 1) / members, size * ways),
        # A permute: the whole operand, over the slower way if any pair of devices needs it.
    }.get(kind, (0, size) if slices > 1 else (size, 0))
    sent: tuple[tuple[Network, float, int], ...] = (("ici", ici, inside), ("dcn", dcn, slices))
    for network, amount, group in sent:
        if amount:
            yield Transfer(
                kind=kind,
                network=network,
                bytes=float(amount),
                group=group,
                axes=axes,
                blocking=blocking,
            )


def host_copy(kind: str, made: Instruction, computation: Computation) -> Iterator[Transfer]:
    """The copy that crosses between HBM and the host's memory, if this is one."""
    source = computation[made.operands[0]].type
    target = made.type
    if kind == "dynamic-update-slice":  # into the first operand, from the second
        source, target = computation[made.operands[1]].type, source
        moved = source
    else:
        if made.opcode.endswith("-start"):  # copy: (target, source, ..); slices: ((..), target, ..)
            target = ARRAY.findall(target)[0 if kind == "copy" else len(made.operands)]
        moved = target
    if (ON_HOST in source) != (ON_HOST in target):
        direction = TO_HOST if ON_HOST in target else FROM_HOST
        blocking = not made.opcode.endswith("-start")
        size = float(count_bytes(moved))
        yield Transfer(kind=direction, network="host", bytes=size, blocking=blocking)
