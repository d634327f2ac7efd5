"""Frames at the encoder's input size."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.anyres import image_crops
from data_pipelines.errors import InputError
from data_pipelines.images import ImagePolicy

SIDE = 336


def picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(height).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def test_squash_is_pillow_bicubic() -> None:
    rgb = picture(360, 640)
    prepared = ImagePolicy(size=384, mode="squash").prepare(rgb)
    expected = Image.fromarray(rgb).resize((384, 384), Image.Resampling.BICUBIC)
    assert prepared.dtype == np.uint8
    np.testing.assert_array_equal(prepared, np.asarray(expected))


def test_crop_keeps_the_middle_of_the_long_side() -> None:
    rgb = picture(360, 640)
    resized = np.asarray(Image.fromarray(rgb).resize((597, 336), Image.Resampling.BICUBIC))
    prepared = ImagePolicy(size=336, mode="shortest_edge_crop").prepare(rgb)
    np.testing.assert_array_equal(prepared, resized[:, 130 : 130 + 336])


@pytest.mark.parametrize("shape", [(360, 640), (640, 360), (100, 133), (20, 900), (224, 224)])
def test_same_pixels_as_the_processors_of_transformers(shape: tuple[int, int]) -> None:
    siglip = pytest.importorskip("transformers.models.siglip.image_processing_pil_siglip")
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    rgb = picture(*shape)
    side = {"height": 224, "width": 224}
    oracles = {
        "squash": siglip.SiglipImageProcessorPil(size=side),
        "shortest_edge_crop": clip.CLIPImageProcessorPil(),
    }
    for mode, oracle in oracles.items():
        raw = oracle(rgb, do_rescale=False, do_normalize=False, return_tensors="np")
        prepared = ImagePolicy(size=224, mode=mode).prepare(rgb)  # type: ignore[arg-type]
        np.testing.assert_array_equal(prepared, raw["pixel_values"][0].transpose(1, 2, 0))


def test_a_crop_is_not_changed_by_the_encoders_processor() -> None:
    """The authors send every crop through CLIP's processor; for a square of its size it is idle."""
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    oracle = clip.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    crop = image_crops(picture(300, 500), [(672, 336)], SIDE)[1]
    raw = oracle(crop, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(raw[0].transpose(1, 2, 0), crop)


def test_refuses_nonsense() -> None:
    with pytest.raises(InputError, match="size"):
        ImagePolicy(size=0)
    with pytest.raises(InputError, match="mode"):
        ImagePolicy(mode="pad")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"float32 \(4, 4, 3\)"):
        ImagePolicy().prepare(np.zeros((4, 4, 3), np.float32))
