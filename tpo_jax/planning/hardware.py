"""TPU chips and slices: what a chip can do, and slices by the names people write.

Sources, looked up in 2026: [v4], [v5e], [v5p], [v6e], [tpu7x] are the pages of these names under
docs.cloud.google.com/tpu/docs. [compiler] is the HBM that libtpu 0.0.51 says a program may have,
when it refuses one that needs more. Where a number is an assumption, it says so.
"""

import math
import re
from dataclasses import dataclass

from tpo_jax.errors import InputError, did_you_mean

GIB = 2**30
GIGABIT = 10**9 / 8  # bytes
EXAMPLES = "v5p:4x4x4, v5p-128, v5litepod-16, v6e-64, 2xv5p-128"

# No page gives the bandwidth between chip and host. v4 is known to sit on PCIe 3 x16, 16 GB/s one
# way; 15 GB/s of it, and the same for all newer chips, is an assumption on the careful side.
HOST_BYTES_PER_S = 15e9


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One TPU chip. Rates are peaks; `estimate` says what share of them it counts on.

    Attributes:
      name: as in topology names.
      devices: JAX devices a chip shows as.
      cores: TensorCores; v4 and v5p slices are named by their number of cores.
      hbm_bytes: of all devices of the chip, as much as a program may have.
      flops: bf16 FLOP/s, a multiply-add counted as 2.
      hbm_bytes_per_s: reading and writing together.
      ici_bytes_per_s: what the chip can send to its neighbours, summed over all its links. It can
        receive as much at the same time; pages that say "bidirectional" give twice this number.
      dcn_bytes_per_s: what the chip can send over the data-centre network, its share of the host's.
      host_bytes_per_s: between HBM and the host's memory, one way.
      dimensions: of the torus or mesh; a chip has two links in each.
      wraps_at: a dimension of a slice closes to a ring if it is a multiple of this.
    """

    name: str
    devices: int = 1
    cores: int
    hbm_bytes: int
    flops: float
    hbm_bytes_per_s: float
    ici_bytes_per_s: float
    dcn_bytes_per_s: float
    host_bytes_per_s: float = HOST_BYTES_PER_S
    dimensions: int
    wraps_at: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            cores=2,
            hbm_bytes=int(30.75 * GIB),  # [compiler] with both cores as one device; [v4] 32 GiB
            flops=275e12,  # [v4]
            hbm_bytes_per_s=1228e9,  # [v4]; some versions of the page say 1,200 GB/s
            ici_bytes_per_s=2400 * GIGABIT,  # [v4], 6 links of 50 GB/s
            # No page gives it. Assumed: what [v5p], with as many chips on a host, has.
            dcn_bytes_per_s=50 * GIGABIT,
            dimensions=3,
            wraps_at=4,  # [v4]: a torus where each dimension is a multiple of 4
        ),
        Chip(
            name="v5e",
            cores=1,
            hbm_bytes=int(15.75 * GIB),  # [compiler]; [v5e] 16 GB
            flops=197e12,  # [v5e]
            hbm_bytes_per_s=819e9,  # [v5e]
            ici_bytes_per_s=1600 * GIGABIT,  # [v5e]: 400 GB/s bidirectional
            dcn_bytes_per_s=25 * GIGABIT,  # [v5e]: 2 x 100 Gbit/s for 8 chips
            dimensions=2,
            wraps_at=16,  # a torus only where a dimension is that of the whole pod
        ),
        Chip(
            name="v5p",
            cores=2,
            hbm_bytes=int(95.73 * GIB),  # [compiler]; [v5p] 95 GiB
            flops=459e12,  # [v5p]
            hbm_bytes_per_s=2765e9,  # [v5p]
            ici_bytes_per_s=4800 * GIGABIT,  # [v5p]: 1,200 GB/s bidirectional
            dcn_bytes_per_s=50 * GIGABIT,  # [v5p]
            dimensions=3,
            wraps_at=4,  # [v5p]
        ),
        Chip(
            name="v6e",
            cores=1,
            hbm_bytes=int(31.24 * GIB),  # [compiler]; [v6e] 32 GB
            flops=918e12,  # [v6e]
            hbm_bytes_per_s=1638e9,  # [tpu7x]; [v6e] 1,640 GB/s
            # [tpu7x]: 800 GB/s bidirectional. Versions of [v6e] say 3,200 or 3,584 Gbit/s.
            ici_bytes_per_s=3200 * GIGABIT,
            dcn_bytes_per_s=100 * GIGABIT,  # [tpu7x]; [v6e] 4 x 200 Gbit/s for 8 chips
            dimensions=2,
            wraps_at=16,
        ),
        Chip(
            name="tpu7x",
            devices=2,
            cores=2,
            hbm_bytes=int(2 * 94.74 * GIB),  # [compiler], two devices; [tpu7x] 192 GiB
            flops=2307e12,  # [tpu7x]
            hbm_bytes_per_s=7380e9,  # [tpu7x]
            ici_bytes_per_s=600e9,  # [tpu7x]: 1,200 GB/s bidirectional
            dcn_bytes_per_s=100 * GIGABIT,  # [tpu7x]
            dimensions=3,
            wraps_at=4,  # assumed: as [v5p]
        ),
    )
}

# Shapes by number of chips, as the pages list them; larger 3D ones are listed there too.
FLAT_SHAPES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
CUBE_SHAPES = (
    *((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8)),
    *((8, 8, 8), (8, 8, 16), (8, 16, 16), (16, 16, 16), (16, 16, 24)),
)
# How a slice of so many cores (v4, v5p) or chips (the others) is called.
PREFIXES = {"v4": "v4", "v5p": "v5p", "v5litepod": "v5e", "v5e": "v5e", "v6e": "v6e"}
COUNTED_IN_CORES = ("v4", "v5p")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """`slices` equal blocks of chips; inside one they speak over ICI, between them over DCN."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        """Of all slices."""
        return self.slices * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """JAX devices of all slices."""
        return self.chips * self.chip.devices

    @property
    def hbm_bytes_per_device(self) -> int:
        """What the compiler's figures, which are those of a device, are held against."""
        return self.chip.hbm_bytes // self.chip.devices

    @property
    def name(self) -> str:
        """As `parse_slice` reads it."""
        return f"{self.slices}x{self.topology_name}" if self.slices > 1 else self.topology_name

    @property
    def topology_name(self) -> str:
        """One slice, for `jax.experimental.topologies.get_topology_desc`."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def topology_options(self) -> dict[str, int | str]:
        """The further arguments of `get_topology_desc`."""
        options: dict[str, int | str] = {}
        if self.slices > 1:
            options["num_slices"] = self.slices
        if self.chip.name == "v4":  # without it, each core is a device with half of the memory
            options["chip_config_name"] = "megacore"
        return options

    @property
    def ici_bytes_per_s(self) -> float:
        """What a chip of this slice can send, over the links that exist in it.

        A dimension that closes to a ring uses both of its links. One that does not has to send
        everything back the way it came, which counts as one link; one of a single chip has none.
        """
        link = self.chip.ici_bytes_per_s / (2 * self.chip.dimensions)
        links = [
            0 if size == 1 else 2 if size % self.chip.wraps_at == 0 else 1 for size in self.shape
        ]
        return link * sum(links)


def default_shape(chip: Chip, chips: int) -> tuple[int, ...] | None:
    """The usual shape of a slice of so many chips; None if there is none."""
    shapes = FLAT_SHAPES if chip.dimensions == 2 else CUBE_SHAPES
    return next((shape for shape in shapes if math.prod(shape) == chips), None)


def slice_names() -> list[str]:
    """Names to suggest: every one by chip or core count, and a topology of each chip."""
    names = []
    for prefix, name in PREFIXES.items():
        chip = CHIPS[name]
        counted = chip.cores if name in COUNTED_IN_CORES else 1
        for shape in FLAT_SHAPES if chip.dimensions == 2 else CUBE_SHAPES:
            names.append(f"{prefix}-{counted * math.prod(shape)}")
    names += [f"{chip.name}:{'x'.join('2' * chip.dimensions)}" for chip in CHIPS.values()]
    return names


def parse_slice(text: str) -> Slice:
    """A slice by its topology (v5p:4x4x4) or common name (v5p-128), "2x" before it for two.

    v4 and v5p are named by TensorCores, two a chip; v5e (v5litepod) and v6e by chips.

    Raises:
      InputError: there is no such slice.
    """
    asked = text.strip().lower()
    many = re.fullmatch(r"(\d+)x([a-z].*)", asked)
    slices, one = (int(many[1]), many[2]) if many else (1, asked)
    shape: tuple[int, ...] | None = None
    if found := re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", one):
        chip = CHIPS.get(PREFIXES.get(found[1], found[1]))
        shape = tuple(map(int, found[2].split("x")))
        if chip is not None and len(shape) != chip.dimensions:
            raise InputError(
                f"{text}: a {chip.name} slice has {chip.dimensions} dimensions, as in "
                f"{chip.name}:{'x'.join('4' * chip.dimensions)}"
            )
    elif found := re.fullmatch(r"([a-z0-9]+)-(\d+)", one):
        chip = CHIPS.get(PREFIXES.get(found[1], ""))
        if chip is not None:
            per_chip = chip.cores if chip.name in COUNTED_IN_CORES else 1
            shape = (
                None if int(found[2]) % per_chip else default_shape(chip, int(found[2]) // per_chip)
            )
    else:
        chip = None
    if chip is None or not shape or min(shape) < 1 or slices < 1:
        hint = did_you_mean(one, slice_names())
        raise InputError(f"{text} is not a known TPU slice{hint}; examples: {EXAMPLES}")
    return Slice(chip=chip, shape=shape, slices=slices)
