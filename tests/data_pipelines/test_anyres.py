"""An image as a grid of crops."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import anyres
from data_pipelines.anyres import best_resolution, image_crops, parse_pinpoints, read_image
from data_pipelines.errors import InputError

SIDE = 336
GRID = parse_pinpoints("(1x1),...,(6x6)", SIDE)
LLAVA = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]  # the first LLaVA's five


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


# ---------------------------------------------------------------------- the authors' rule, retold


def authors_resolution(
    size: tuple[int, int], resolutions: list[tuple[int, int]]
) -> tuple[int, int] | None:
    """The first of those that keep most pixels, and among them leave least of their own unused."""
    fits = []
    for place, (width, height) in enumerate(resolutions):
        scale = min(width / size[0], height / size[1])
        pixels = int(size[0] * scale) * int(size[1] * scale)
        pixels = pixels if pixels < size[0] * size[1] else size[0] * size[1]
        fits.append((-pixels, width * height - pixels, place))
    best = min(fits)
    return resolutions[best[2]] if best[0] < 0 else None


def authors_crops(rgb: np.ndarray, resolution: tuple[int, int], side: int) -> list[np.ndarray]:
    """Resize, paste on black, and crop one square after the other, all by Pillow."""
    image = Image.fromarray(rgb)
    scale = [full / own for full, own in zip(resolution, image.size, strict=True)]
    if scale[0] < scale[1]:
        size = (resolution[0], min(-int(-image.height * scale[0] // 1), resolution[1]))
    else:
        size = (min(-int(-image.width * scale[1] // 1), resolution[0]), resolution[1])
    canvas = Image.new("RGB", resolution, (0, 0, 0))
    place = ((resolution[0] - size[0]) // 2, (resolution[1] - size[1]) // 2)
    canvas.paste(image.resize(size, Image.Resampling.BICUBIC), place)
    crops = []
    for top in range(0, resolution[1], side):
        for left in range(0, resolution[0], side):
            crops.append(np.asarray(canvas.crop((left, top, left + side, top + side))))
    return crops


SIZES = st.tuples(st.integers(8, 3000), st.integers(8, 3000))


@given(SIZES, st.lists(st.sampled_from([*GRID, *LLAVA]), min_size=1, max_size=12))
@settings(deadline=None, max_examples=150)
def test_the_resolution_is_the_authors(
    size: tuple[int, int], resolutions: list[tuple[int, int]]
) -> None:
    expected = authors_resolution(size, resolutions)
    if expected is None:
        with pytest.raises(InputError, match="too thin"):
            best_resolution(size, resolutions)
    else:
        assert best_resolution(size, resolutions) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((336, 336), (336, 336)),
        ((100, 100), (336, 336)),  # blowing it up further keeps no more
        ((672, 336), (672, 336)),
        ((640, 360), (672, 672)),  # 672x336 would keep 597x336; two rows keep all its pixels
        ((1280, 720), (1344, 1008)),
        ((720, 1280), (1008, 1344)),
        ((4000, 3000), (2016, 1680)),  # larger than any: what keeps most, with least black
        ((3000, 300), (2016, 336)),
    ],
)
def test_known_resolutions(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert best_resolution(size, GRID) == expected == authors_resolution(size, GRID)


@given(
    st.tuples(st.integers(2, 260), st.integers(2, 260)),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=6),
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=80)
def test_the_crops_are_the_authors(
    size: tuple[int, int], grids: list[tuple[int, int]], seed: int
) -> None:
    side = 28
    resolutions = [(across * side, down * side) for across, down in grids]
    resolution = authors_resolution(size, resolutions)
    if resolution is None:
        return
    rgb = picture(*size, seed)
    crops = image_crops(rgb, resolutions, side)
    assert crops.dtype == np.uint8 and crops.shape[1:] == (side, side, 3)
    expected = np.stack(authors_crops(rgb, resolution, side))
    np.testing.assert_array_equal(crops, expected)


def test_a_side_that_is_not_whole_is_rounded_up() -> None:
    # 3 pixels by 28/13 are 6.46: 7 rows, in the middle of 28 with 10 above and 11 below.
    assert Fraction(3 * 28, 13) > 6
    crop = image_crops(np.full((3, 13, 3), 255, np.uint8), [(28, 28)], 28)[0]
    assert np.flatnonzero(crop.any(axis=(1, 2))).tolist() == list(range(10, 17))
    assert (crop[10:17] == 255).all()


def test_crops_come_in_reading_order() -> None:
    # Six squares of one colour each: each crop is one of them.
    colours = np.arange(1, 7, dtype=np.uint8).reshape(2, 3) * 40
    rgb = np.repeat(np.kron(colours, np.ones((SIDE, SIDE), np.uint8))[:, :, None], 3, axis=2)
    crops = image_crops(rgb, GRID, SIDE)
    assert crops.shape == (6, SIDE, SIDE, 3)
    assert [np.unique(crop).tolist() for crop in crops] == [[n * 40 % 256] for n in range(1, 7)]


# -------------------------------------------------------------------------------- the config's key


def test_pinpoints_are_a_list_or_a_string_of_either_kind() -> None:
    pairs = [(336, 672), (672, 336)]
    for value in ([[336, 672], [672, 336]], "[[336, 672], [672, 336]]", "[(336,672),(672,336)]"):
        assert parse_pinpoints(value, SIDE) == pairs
    # The range is every grid between the ends, width first, whatever stands between them.
    assert parse_pinpoints("(1x1),...,(2x3)", SIDE) == [
        (336, 336), (336, 672), (336, 1008), (672, 336), (672, 672), (672, 1008)
    ]  # fmt: skip
    assert parse_pinpoints("(1x2),(9x9),(2x2)", 100) == [(100, 200), (200, 200)]
    assert len(GRID) == 36 and GRID[:2] == [(336, 336), (336, 672)] and GRID[-1] == (2016, 2016)


@pytest.mark.parametrize(
    "value",
    [None, 3, [], "", "[]", "(ax1)", "[[336]]", "[[336, 336.0]]", [[336, "672"]], "[336, 672]",
     "[[336, 672]", "import os", {"a": 1}, [[336, 672], 5], "(2x2),...,(1x1)", [[True, 336]]],
)  # fmt: skip
def test_other_pinpoints_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="config.json: image_grid_pinpoints: must list") as error:
        parse_pinpoints(value, SIDE, where="config.json: image_grid_pinpoints")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [[[336, 500]], [[500, 336]], [[0, 336]], "[[384, 384]]"])
def test_resolutions_that_do_not_fall_into_crops_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="is not a whole number of 336x336 crops"):
        parse_pinpoints(value, SIDE)


# --------------------------------------------------------------------------------------- the files


def test_images_are_read_as_rgb(tmp_path: Path) -> None:
    rgb = picture(40, 30)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)
    clear = np.dstack([rgb, np.zeros((30, 40), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "b.webp", lossless=True, exact=True)
    np.testing.assert_array_equal(read_image(tmp_path / "b.webp"), rgb)
    Image.fromarray(rgb[:, :, 0]).save(tmp_path / "c.bmp")
    grey = read_image(tmp_path / "c.bmp")
    np.testing.assert_array_equal(grey, np.repeat(rgb[:, :, :1], 3, axis=2))
    assert (
        anyres.is_image("x/Y.JPG") and not anyres.is_image("jpg") and not anyres.is_image("a.mp4")
    )


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(picture(300, 300)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "bad.png").write_bytes(whole.read_bytes().replace(b"IDAT", b"\0DAT"))
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.png", "bad.png", "text.jpg", "empty.png", "missing.png"):
        with pytest.raises(InputError, match=name) as error:
            read_image(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="2x3000 pixels is too thin"):
        image_crops(np.zeros((3000, 2, 3), np.uint8), [(672, 336)], SIDE)
