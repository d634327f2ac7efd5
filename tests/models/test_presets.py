"""Published models by name: they are read, and are as big as published."""

import jax
import pytest

from data_pipelines.images import ImagePolicy
from tpo_jax.errors import InputError
from tpo_jax.models.checkpoint_config import config_from_json, image_mode
from tpo_jax.models.presets import PRESETS, demo_model_json, preset_json
from tpo_jax.models.video_lmm import Params, abstract_model

DECODERS = {"0_5b": 494_032_768, "7b": 7_615_616_512, "72b": 72_706_203_648}
SIGLIP, CLIP = 397_747_744, 303_507_456
WHOLE = {"llava_video_7b": 8_030_348_832, "longva_7b": 7_935_646_208}


def count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_model_of_the_published_size(name: str) -> None:
    _, shapes = abstract_model(config_from_json(preset_json(name)))
    family, size = next((name.removesuffix(f"_{s}"), s) for s in DECODERS if name.endswith(f"_{s}"))
    assert count(shapes["language"]) == DECODERS[size]
    assert count(shapes["vision"]) == (CLIP if family == "longva" else SIGLIP)
    assert ("newline" in shapes) == (family != "longva")
    assert ("head" in shapes["language"]) == (size != "0_5b")
    if name in WHOLE:
        assert count(shapes) == WHOLE[name]


@pytest.mark.parametrize(
    ("name", "frame", "video"),
    [
        ("llava_video_7b", 14 * 15, 64 * 14 * 15),
        ("llava_onevision_7b", 14 * 14, 64 * 14 * 14 + 1),
        ("longva_7b", 12 * 12, 64 * 12 * 12),
    ],
)
def test_a_preset_shows_64_frames_as_so_many_tokens(name: str, frame: int, video: int) -> None:
    config = config_from_json(preset_json(name))
    assert (config.tokens_per_frame, config.tokens_per_video(64)) == (frame, video)


def test_what_sets_the_families_apart() -> None:
    llava, longva = (config_from_json(preset_json(n)) for n in ("llava_video_7b", "longva_7b"))
    assert (llava.vision.layers, llava.vision.layers_used, llava.vision.side) == (26, 26, 27)
    assert (longva.vision.layers, longva.vision.layers_used, longva.vision.side) == (24, 23, 24)
    assert (llava.language.rope_theta, longva.language.rope_theta) == (1e6, 1e9)
    assert llava.language.head_width == longva.language.head_width == 128
    assert llava.language.vocab_rows == longva.language.vocab_rows == 152064
    small = config_from_json(preset_json("llava_onevision_0_5b"))
    assert (small.language.vocab_rows, small.language.tied_embeddings) == (151936, True)


def test_the_image_mode_is_one_the_frames_know() -> None:
    for name, size, mode in (
        ("llava_video_7b", 384, "squash"),
        ("longva_7b", 336, "shortest_edge_crop"),
    ):
        config = config_from_json(preset_json(name))
        policy = ImagePolicy(size=config.vision.image_size, mode=image_mode(config))
        assert (policy.size, policy.mode) == (size, mode)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="^longva_8b is not a known model; did you mean longva_7b"):
        preset_json("longva_8b")


def test_a_preset_can_be_changed_without_changing_it_for_others() -> None:
    preset_json("llava_video_7b")["image_grid_pinpoints"].clear()
    assert len(preset_json("llava_video_7b")["image_grid_pinpoints"]) == 36


def test_the_demo_model() -> None:
    config = config_from_json(demo_model_json(vocab_rows=77))
    assert config.language.vocab_rows == 77
    assert config.tokens_per_frame == 1 + 1  # and its newline
    assert config.language.tied_embeddings
    assert config.vision.layers_used == 3
    assert count(abstract_model(config_from_json(demo_model_json()))[1]) < 3_000_000
