"""One image as LongVA sees it: a grid of crops, taken for the frames of a video (UniRes).

The image keeps its aspect ratio, is resized into the resolution that suits it best, stands in its
middle on black, and is cut into squares. LongVA's processor also makes one more square of the whole
image; its model throws that away, so it is not made here.
"""

import ast
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.images import Pixels

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MERGE_TYPE = "unires"  # what config.json calls this way of seeing images
PINPOINTS_KEY = "image_grid_pinpoints"

Resolution = tuple[int, int]  # width, height


def is_image(path: Path | str) -> bool:
    """Whether a file is an image by its suffix, and not a video."""
    return Path(path).suffix.lower() in SUFFIXES


def read_image(path: Path | str) -> Pixels:
    """Reads an image file as uint8 RGB [height, width, 3], without transparency.

    As in the authors' code it is not turned by what a camera noted about its position.

    Raises:
      InputError: the file is missing, damaged or not an image.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not an image that can be read ({reason})") from error


def parse_pinpoints(value: object, side: int, *, where: str = PINPOINTS_KEY) -> list[Resolution]:
    """The resolutions that an image may be resized into, from `image_grid_pinpoints`.

    Args:
      value: a list of [width, height] in pixels, the same written as a string, or a range in crops
        such as "(1x1),...,(6x6)": all grids from the first to the last one.
      side: of a crop, in pixels.
      where: what errors name.

    Raises:
      InputError: it is none of these, or a resolution is not a whole number of crops.
    """
    mend = f"must list [width, height] pairs or be a range like (1x1),...,(6x6), got {value!r:.80}"
    if isinstance(value, str) and "x" in value:
        # The authors look for grids anywhere in the string, and use the first and the last one.
        grids = [(int(a), int(b)) for a, b in re.findall(r"\((\d+)x(\d+)\)", value)]
        if not grids:
            raise InputError(f"{where}: {mend}")
        (first_x, first_y), (last_x, last_y) = grids[0], grids[-1]
        value = [
            (across * side, down * side)
            for across in range(first_x, last_x + 1)
            for down in range(first_y, last_y + 1)
        ]
    elif isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise InputError(f"{where}: {mend}") from error
    if not isinstance(value, (list, tuple)) or not value or not all(map(_is_pair, value)):
        raise InputError(f"{where}: {mend}")
    for width, height in value:
        if min(width, height) < side or width % side or height % side:
            raise InputError(
                f"{where}: {width}x{height} is not a whole number of {side}x{side} crops"
            )
    return [(width, height) for width, height in value]


def _is_pair(item: object) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2 and all(type(n) is int for n in item)


def best_resolution(size: Resolution, resolutions: Sequence[Resolution]) -> Resolution:
    """The resolution that keeps most of an image's pixels, and of those the one with least left.

    Blown-up pixels do not count: no resolution keeps more than the image has. Of equals the first
    is taken.

    Raises:
      InputError: the image is so thin that nothing of it would be left in any.
    """

    def merit(resolution: Resolution) -> tuple[int, int]:
        width, height = resolution
        scale = min(width / size[0], height / size[1])
        kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return kept, kept - width * height

    best = max(resolutions, key=merit)
    if merit(best)[0] == 0:
        raise InputError(
            f"an image of {size[0]}x{size[1]} pixels is too thin; crop it to a wider part"
        )
    return best


def image_crops(rgb: Pixels, resolutions: Sequence[Resolution], side: int) -> Pixels:
    """An image as crops in reading order.

    Args:
      rgb: uint8 [height, width, 3].
      resolutions: from `parse_pinpoints`.
      side: of a crop, in pixels: the encoder's image size.

    Returns:
      uint8 [crops, side, side, 3], at least one crop.

    Raises:
      InputError: the image is too thin.
    """
    height, width = rgb.shape[:2]
    full_width, full_height = best_resolution((width, height), resolutions)
    scale_x, scale_y = full_width / width, full_height / height
    # Rounded up here, but down where resolutions are compared: so do the authors.
    if scale_x < scale_y:
        new_width, new_height = full_width, min(math.ceil(height * scale_x), full_height)
    else:
        new_width, new_height = min(math.ceil(width * scale_y), full_width), full_height
    resized = Image.fromarray(rgb).resize((new_width, new_height), Image.Resampling.BICUBIC)
    canvas = np.zeros((full_height, full_width, 3), np.uint8)
    top, left = (full_height - new_height) // 2, (full_width - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = np.asarray(resized)
    rows, columns = full_height // side, full_width // side
    grid = canvas.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(rows * columns, side, side, 3))
