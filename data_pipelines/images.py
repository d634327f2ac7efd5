"""Frames to the encoder's input size, exactly as the encoders' own processors do it."""

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_pipelines.errors import InputError

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePolicy:
    """How a frame becomes a square.

    Attributes:
      size: side of the square in pixels.
      mode: "squash" resizes both sides, whatever the aspect ratio (SigLIP).
        "shortest_edge_crop" resizes the short side to `size` and keeps the middle of the long
        one (CLIP).
    """

    size: int = 384
    mode: Literal["squash", "shortest_edge_crop"] = "squash"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"image policy size {self.size}: must be at least 1")
        if self.mode not in ("squash", "shortest_edge_crop"):
            raise InputError(
                f"image policy mode {self.mode!r}: must be 'squash' or 'shortest_edge_crop'"
            )

    def prepare(self, rgb: Pixels) -> Pixels:
        """Resizes one frame, uint8 [height, width, 3], to uint8 [size, size, 3].

        The filter is Pillow's bicubic on uint8, which rounds between its two passes; a float
        resize differs by several levels. Scaling and normalisation belong to the model.

        Raises:
          InputError: `rgb` has another dtype or shape.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise InputError(
                f"a frame must be uint8 [height, width, 3], got {rgb.dtype} {rgb.shape}"
            )
        height, width = rgb.shape[:2]
        if self.mode == "squash":
            target_height = target_width = self.size
        else:
            short = min(height, width)
            # The long side is truncated, not rounded: one pixel would move the crop.
            target_height = int(self.size * height / short)
            target_width = int(self.size * width / short)
        image = Image.fromarray(rgb)
        resized = np.asarray(
            image.resize((target_width, target_height), resample=Image.Resampling.BICUBIC)
        )
        top = (target_height - self.size) // 2
        left = (target_width - self.size) // 2
        return np.ascontiguousarray(resized[top : top + self.size, left : left + self.size])
