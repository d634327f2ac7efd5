"""From FLOPs, bytes and a slice to a step's time, what bounds it, and what a run costs.

A model, not a measurement: nothing here has run on a TPU. It compares settings and slices, and says
which resource to look at. Its assumptions are the constants below.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tpo_jax.planning.flops import PARTS, Flops
from tpo_jax.planning.hardware import Slice
from tpo_jax.planning.traffic import FROM_HOST, TO_HOST, Traffic

# The share of peak FLOP/s that products reach. Assumed: dense language models are published with
# utilisations of 0.55 to 0.65 for whole steps, so their products alone must do somewhat better.
# Attention's kernel spends about as long on the softmax of a block as on its products.
ACHIEVABLE_FLOPS: Mapping[str, float] = {**dict.fromkeys(PARTS, 0.7), "attention": 0.45}
# The share of what links, network and memory could carry. Assumed: headers, latency, refresh.
ACHIEVABLE_ICI = 0.9
ACHIEVABLE_DCN = 0.7
ACHIEVABLE_HOST = 0.8
ACHIEVABLE_HBM = 0.8
# AdamW on fp32 masters: gradient, master and two moments are read, all but the gradient written,
# and the gradient is read once more for its norm.
ADAMW_BYTES = 4 * (4 + 3 + 1)


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of a step by resource, were each alone, and of the whole.

    Compute, HBM, ICI, DCN and host work beside each other, so that the slowest of them is the time
    of the pass; a blocking transfer holds up compute. The optimizer's update follows it.

    Attributes:
      compute: of the products.
      hbm: of other reading and writing of HBM during the pass.
      ici, dcn, host: of all transfers.
      blocking: of the transfers during which nothing else runs, in `ici`, `dcn` and `host` too.
      update: of the optimizer.
      model_flops: per chip.
      peak_flops: of a chip, per second.
    """

    compute: float
    hbm: float
    ici: float
    dcn: float
    host: float
    blocking: float
    update: float
    model_flops: float
    peak_flops: float

    @property
    def by_resource(self) -> dict[str, float]:
        """Seconds of everything that may bound the step."""
        return {
            "compute": self.compute + self.blocking,
            "hbm": self.hbm,
            "ici": self.ici,
            "dcn": self.dcn,
            "host": self.host,
        }

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return max(self.by_resource.values()) + self.update

    @property
    def bound_by(self) -> str:
        """The resource that takes longest; "blocking" where waiting takes longer than computing."""
        name = max(self.by_resource, key=lambda resource: self.by_resource[resource])
        return "blocking" if name == "compute" and self.blocking > self.compute else name

    @property
    def utilisation(self) -> float:
        """Model FLOPs over what the chip could have computed in this time."""
        return self.model_flops / (self.seconds * self.peak_flops)


def modelled_time(
    flops: Flops,
    traffic: Traffic,
    where: Slice,
    *,
    hbm_bytes: float = 0.0,
    update_bytes: float = 0.0,
) -> StepTime:
    """The time of one step.

    Args:
      flops: of the busiest chip: those of its rows (or its part of a row).
      traffic: of one device, as read from the compiled step.
      where: the slice; its links say how fast a chip can send.
      hbm_bytes: a chip reads and writes in the pass beyond what products hide, if known.
      update_bytes: a chip reads and writes for the optimizer, as `adamw_bytes` counts them.
    """
    chip, devices = where.chip, where.chip.devices
    compute = sum(
        done / (ACHIEVABLE_FLOPS[part] * chip.flops) for part, done in flops.by_part.items()
    )
    # A slice of one chip has no links, and then nothing may go over them.
    ici_rate = ACHIEVABLE_ICI * where.ici_bytes_per_s / devices
    dcn_rate = ACHIEVABLE_DCN * chip.dcn_bytes_per_s / devices
    host_rate = ACHIEVABLE_HOST * chip.host_bytes_per_s / devices
    hbm_rate = ACHIEVABLE_HBM * chip.hbm_bytes_per_s
    # To the host and from it are two ways that are used at once.
    ways = [
        sum(found.bytes for found in traffic.transfers if found.kind == kind)
        for kind in (TO_HOST, FROM_HOST)
    ]
    return StepTime(
        compute=compute,
        hbm=hbm_bytes / hbm_rate,
        ici=seconds(traffic.ici_bytes, ici_rate),
        dcn=traffic.dcn_bytes / dcn_rate,
        host=max(ways) / host_rate,
        blocking=seconds(traffic.sum_bytes("ici", blocking=True), ici_rate)
        + traffic.sum_bytes("dcn", blocking=True) / dcn_rate
        + traffic.sum_bytes("host", blocking=True) / host_rate,
        update=update_bytes / hbm_rate,
        model_flops=flops.model_flops,
        peak_flops=chip.flops,
    )


def seconds(amount: float, rate: float) -> float:
    """Time for an amount; 0 if there is nothing to do, whatever the rate."""
    return amount / rate if amount else 0.0


def adamw_bytes(trained_parameters: float) -> float:
    """Bytes of HBM that an update of so many parameters (those of one chip) reads and writes."""
    return ADAMW_BYTES * trained_parameters


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What a run of many steps takes."""

    steps: int
    pairs_per_hour: float
    hours: float
    chip_hours: float


def run_cost(step: StepTime, *, pairs: int, pairs_per_step: int, chips: int) -> RunCost:
    """The cost of training on `pairs` pairs (every epoch counted), without start and checkpoints.

    The last step may be partly empty and costs as much as the others.
    """
    steps = -(-pairs // pairs_per_step)
    hours = steps * step.seconds / 3600
    return RunCost(
        steps=steps,
        pairs_per_hour=pairs_per_step / step.seconds * 3600,
        hours=hours,
        chip_hours=hours * chips,
    )
