"""How well a training step uses its chips: tokens a second, and model FLOPs utilisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tpo_jax.models.video_lmm import VideoLMMConfig
from tpo_jax.planning.flops import RowDims, row_flops
from tpo_jax.planning.hardware import CHIPS, Chip

# By what JAX calls a device.
DEVICE_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}


def chip_of(devices: Sequence[Any]) -> Chip | None:
    """The TPU chip that the devices are of; None on other hardware, whose peak is not known."""
    name = DEVICE_KINDS.get(devices[0].device_kind)
    return None if name is None else CHIPS[name]


@dataclass(frozen=True, kw_only=True)
class Utilisation:
    """Of a step: call it with its batch, metrics and seconds.

    Attributes:
      config: the model.
      trained: its top-level parts with a gradient.
      devices: of the mesh.
    """

    config: VideoLMMConfig
    trained: frozenset[str]
    devices: Sequence[Any]

    def __call__(
        self, batch: Mapping[str, Any], metrics: Mapping[str, float], seconds: float
    ) -> dict[str, float]:
        """`tokens_per_second_per_chip` and, where the chip's peak is known, `mfu`.

        Tokens are those that the metrics count, without padding; a device that is no TPU is a chip.
        `mfu` is model FLOPs (nothing computed twice; padding, which is computed, counts) over what
        the chips could do in bf16.

        Args:
          batch: arrays of all devices together.
          metrics: of the step; "tokens" are those of the batch.
          seconds: that the step took.
        """
        chip = chip_of(self.devices)
        chips = len(self.devices) / (chip.devices if chip else 1)
        found = {"tokens_per_second_per_chip": metrics["tokens"] / seconds / chips}
        if chip is not None:
            found["mfu"] = self.batch_flops(batch) / (seconds * chips * chip.flops)
        return found

    def batch_flops(self, batch: Mapping[str, Any]) -> float:
        """Model FLOPs of a batch of rows."""
        rows, answers, answer = batch["answers"].shape
        row = RowDims(
            prompt=batch["tokens"].shape[1] - answers * answer,
            answer=answer,
            answers=answers,
            frames=batch["frames"].shape[1],
            prompt_targets=batch["prompt_targets"].shape[1],
        )
        return rows * row_flops(self.config, row, trained=self.trained).model_flops
