"""config.json to settings: what is read, and what is refused."""

import json
from typing import Any

import jax
import pytest

from data_pipelines.images import ImagePolicy
from tests.golden import FAMILIES, golden_folder
from tpo_jax.errors import InputError
from tpo_jax.models.presets import (
    IMPLEMENTED,
    READ,
    VISION_IMPLEMENTED,
    VISION_READ,
    VISION_WITHOUT_EFFECT,
    WITHOUT_EFFECT,
    config_from_json,
    demo_model_json,
    image_mode,
)
from tpo_jax.models.video_lmm import abstract_model

# As published; fields that the trainers leave behind are among them.
LLAVA_VIDEO_7B: dict[str, Any] = {
    "_name_or_path": "a/folder",
    "add_faster_video": False,
    "add_time_instruction": True,
    "architectures": ["LlavaQwenForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "faster_token_stride": 10,
    "force_sample": True,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "image_aspect_ratio": "anyres_max_9",
    "image_crop_resolution": None,
    "image_grid_pinpoints": [[384, 384], [384, 768]],
    "image_split_resolution": None,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "mm_hidden_size": 1152,
    "mm_newline_position": "grid",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_spatial_pool_mode": "bilinear",
    "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_vision_tower_lr": 2e-06,
    "model_type": "llava",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "pos_skipping_range": 4096,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "tokenizer_model_max_length": 32768,
    "tokenizer_padding_side": "right",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0",
    "use_cache": True,
    "use_mm_proj": True,
    "use_pos_skipping": False,
    "use_sliding_window": False,
    "vision_tower_pretrained": None,
    "vocab_size": 152064,
}
LONGVA_7B: dict[str, Any] = {
    key: value for key, value in LLAVA_VIDEO_7B.items() if key != "mm_newline_position"
} | {
    "mm_hidden_size": 1024,
    "mm_patch_merge_type": "unires",
    "mm_spatial_pool_mode": "average",
    "mm_spatial_pool_stride": 2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "model_type": "llava_qwen",
    "rope_theta": 1e9,
}


def parameters(content: dict[str, Any]) -> int:
    _, shapes = abstract_model(config_from_json(content))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_published_models_have_their_parameter_counts() -> None:
    # Counted from the published shapes, towers as stored.
    assert parameters(LLAVA_VIDEO_7B) == 8_030_348_832
    assert parameters(LONGVA_7B) == 7_935_646_208


def test_llava_video() -> None:
    config = config_from_json(LLAVA_VIDEO_7B)
    assert (config.vision.layers, config.vision.layers_used) == (26, 26)
    assert config.vision.side == 27
    assert (config.tokens_per_frame, config.tokens_per_video(64)) == (210, 13440)
    assert config.language.head_width == 128
    assert config.language.rope_theta == 1e6
    assert (config.vision.image_size, image_mode(config)) == (384, "squash")


def test_longva() -> None:
    config = config_from_json(LONGVA_7B)
    assert (config.vision.layers, config.vision.layers_used) == (24, 23)
    assert (config.tokens_per_frame, config.tokens_per_video(64)) == (144, 9216)
    assert config.visual_tokens.newline == "none"
    assert config.language.rope_theta == 1e9
    assert (config.vision.image_size, image_mode(config)) == (336, "shortest_edge_crop")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_embedded_tower_says_how_many_layers_are_used(family: str) -> None:
    content = json.loads((golden_folder(family) / "config.json").read_text())
    config = config_from_json(content)
    stored = 3 if family == "llava_video" else 4
    assert (config.vision.layers, config.vision.layers_used) == (stored, 3)
    del content["vision_config"]["layers_used"]
    assert config_from_json(content).vision.layers_used == (4 if family == "llava_video" else 3)


def test_the_image_mode_is_one_the_frames_know() -> None:
    for content in (LLAVA_VIDEO_7B, LONGVA_7B):
        config = config_from_json(content)
        ImagePolicy(size=config.vision.image_size, mode=image_mode(config))


def test_pool_and_newlines_are_read() -> None:
    for newline, tokens in (("grid", 14 * 15), ("frame", 14 * 14 + 1), ("one_token", 14 * 14)):
        config = config_from_json(LLAVA_VIDEO_7B | {"mm_newline_position": newline})
        assert config.visual_tokens.newline == newline
        assert config.tokens_per_frame == tokens
    average = config_from_json(LLAVA_VIDEO_7B | {"mm_spatial_pool_mode": "average"})
    assert average.tokens_per_frame == 182
    assert config_from_json(LONGVA_7B | {"mm_spatial_pool_stride": 4}).tokens_per_frame == 36


def test_vocabulary_rows_can_be_given() -> None:
    assert config_from_json(LONGVA_7B).language.vocab_rows == 152064
    assert config_from_json(LONGVA_7B, vocab_rows=151646).language.vocab_rows == 151646


def test_the_demo_model() -> None:
    config = config_from_json(demo_model_json(vocab_rows=77))
    assert config.language.vocab_rows == 77
    assert config.tokens_per_frame == 2 * 3
    assert config.vision.layers_used == 3
    assert parameters(demo_model_json()) < 3_000_000


def test_the_tables_do_not_overlap() -> None:
    for tables in (
        (READ, set(IMPLEMENTED), WITHOUT_EFFECT),
        (VISION_READ, set(VISION_IMPLEMENTED), VISION_WITHOUT_EFFECT),
    ):
        assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mm_resampler_type": "qformer"}, 'mm_resampler_type is "qformer"; only null is impl'),
        ({"mm_projector_type": "linear"}, 'mm_projector_type is "linear"; only "mlp2x_gelu" is'),
        ({"use_sliding_window": True}, "use_sliding_window is true; only false is implemented"),
        ({"use_sliding_window": 0}, "use_sliding_window is 0; only false is implemented"),
        ({"rope_scaling": {"type": "linear"}}, 'rope_scaling is {"type": "linear"}; only null'),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"; only "silu"'),
        ({"mm_newline_position": "no_token"}, 'mm_newline_position is "no_token"; only "grid", '),
        ({"mm_spatial_pool_mode": "conv"}, 'mm_spatial_pool_mode is "conv"; only "bilinear", '),
        ({"mm_patch_merge_type": "flat"}, 'mm_patch_merge_type is "flat"; only "spatial_unpad", '),
        ({"mm_spatial_pool_stride": 3}, "mm_spatial_pool_stride is 3; only 2 is implemented"),
        ({"add_faster_video": True}, "add_faster_video is true"),
        ({"mm_vision_tower": "tiny"}, 'mm_vision_tower is "tiny"; only "google/siglip'),
        (
            {"architectures": ["LlavaLlamaForCausalLM"]},
            'architectures is ["LlavaLlamaForCausalLM"]',
        ),
        ({"mm_hidden_size": 7}, "mm_hidden_size is 7, but the vision tower's width is 1152"),
        ({"hidden_sise": 3}, "hidden_sise is not a known field; did you mean hidden_size?"),
        ({"hidden_size": "big"}, 'hidden_size is "big"; it must be a whole number above 0'),
        ({"hidden_size": True}, "hidden_size is true; it must be a whole number above 0"),
        ({"rope_theta": 0}, "rope_theta is 0; it must be a number above 0"),
        ({"num_key_value_heads": 5}, "num_attention_heads 28 is not a multiple of num_key_value"),
        ({"hidden_size": 3585}, "hidden_size 3585 is not a multiple of num_attention_heads 28"),
        ({"vision_config": "siglip"}, 'vision_config is "siglip"; it must be an object'),
        ({"vision_config": {"hidden_size": 1}}, "vision_config.model_type is missing"),
        ({"vision_config": {"depth": 1}}, "vision_config.depth is not a known field"),
        ({"vision_config": {"num_channels": 4}}, "vision_config.num_channels is 4; only 3 is"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        config_from_json(LLAVA_VIDEO_7B | fields)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_more_layers_used_than_stored_is_refused() -> None:
    content = demo_model_json()
    content["vision_config"]["layers_used"] = 4
    with pytest.raises(InputError, match="vision_config.layers_used is 4 of num_hidden_layers 3"):
        config_from_json(content)


@pytest.mark.parametrize("key", ["hidden_size", "rope_theta", "mm_spatial_pool_mode", "vocab_size"])
def test_a_missing_field_is_named(key: str) -> None:
    with pytest.raises(InputError, match=f"^{key} is missing"):
        config_from_json({k: v for k, v in LLAVA_VIDEO_7B.items() if k != key})


def test_a_text_only_checkpoint_is_refused() -> None:
    with pytest.raises(InputError, match="text-only checkpoint; a LLaVA-Video or LongVA"):
        config_from_json({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})
