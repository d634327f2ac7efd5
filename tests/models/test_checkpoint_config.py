"""The authors' config.json to settings and back: what is read, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import FAMILIES as GOLDEN_FAMILIES
from tests.golden import golden_folder
from tests.quick_compile import QUICK
from tests.random_params import random_params
from tests.small_model import small_model_json
from tpo_jax.errors import InputError
from tpo_jax.models import checkpoint_config, onevision_config, part_configs
from tpo_jax.models.checkpoint_config import config_from_json, llava_json, model_config
from tpo_jax.models.config_fields import Fields
from tpo_jax.models.language import LanguageConfig
from tpo_jax.models.part_configs import FAMILIES, QWEN2_DEFAULTS
from tpo_jax.models.presets import PRESETS, preset_json
from tpo_jax.models.video_lmm import VideoLMM, VideoLMMConfig, abstract_model
from tpo_jax.models.vision import GELUS, VisionConfig
from tpo_jax.models.visual_tokens import NEWLINES, POOLS, VisualTokensConfig

LLAVA_VIDEO = preset_json("llava_video_7b")
LONGVA = preset_json("longva_7b")
ALL_FIELDS = {
    "authors": checkpoint_config.FIELDS,
    "authors' tower": checkpoint_config.TOWER_FIELDS,
    "onevision": onevision_config.FIELDS,
    "onevision's text": onevision_config.TEXT_FIELDS,
    "onevision's tower": onevision_config.TOWER_FIELDS,
    "rope": part_configs.ROPE_FIELDS,
}


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


# --------------------------------------------------------------------------------- the tower


@pytest.mark.parametrize("family", GOLDEN_FAMILIES)
def test_an_embedded_tower_says_how_many_layers_are_used(family: str) -> None:
    content = json.loads((golden_folder(family) / "config.json").read_text())
    config = config_from_json(content)
    stored = 3 if family == "llava_video" else 4
    assert (config.vision.layers, config.vision.layers_used) == (stored, 3)
    del content["vision_config"]["layers_used"]
    assert config_from_json(content).vision.layers_used == (4 if family == "llava_video" else 3)


@pytest.mark.parametrize(("index", "used"), [(-1, 24), (-2, 23), (-24, 1), (1, 1), (24, 24)])
def test_clip_hands_on_the_hidden_state_that_is_selected(index: int, used: int) -> None:
    vision = config_from_json(LONGVA | {"mm_vision_select_layer": index}).vision
    assert (vision.layers, vision.layers_used) == (24, used)


@pytest.mark.parametrize("index", [-25, 0, 25, 1.0, [-2], None])
def test_a_hidden_state_that_no_layer_makes_is_refused(index: object) -> None:
    with pytest.raises(InputError, match="^mm_vision_select_layer is .* 24 layers"):
        config_from_json(LONGVA | {"mm_vision_select_layer": index})


def test_siglip_does_not_look_at_the_selected_layer() -> None:
    for index in (-1, 3, None):
        content = LLAVA_VIDEO | {"mm_vision_select_layer": index}
        assert config_from_json(content).vision.layers_used == 26
    assert config_from_json(without(LLAVA_VIDEO, "mm_vision_select_layer")).vision.layers == 26


def test_two_numbers_of_used_layers_must_agree() -> None:
    tower = checkpoint_config.TOWERS[LONGVA["mm_vision_tower"]]
    config_from_json(LONGVA | {"vision_config": {**tower, "layers_used": 23}})
    with pytest.raises(InputError, match="layers_used is 22, but mm_vision_select_layer means 23"):
        config_from_json(LONGVA | {"vision_config": {**tower, "layers_used": 22}})
    content = small_model_json()
    content["vision_config"]["layers_used"] = 4
    with pytest.raises(InputError, match="vision_config.layers_used is 4 of num_hidden_layers 3"):
        config_from_json(content)


# ----------------------------------------------------------------------------- visual tokens


@pytest.mark.parametrize(
    ("merge", "position", "newline", "stored"),
    [
        ("spatial_unpad", "grid", "grid", True),
        ("spatial_unpad", "frame", "frame", True),
        ("spatial_unpad", "one_token", "one_token", True),
        ("spatial_unpad", "no_token", "none", True),
        # Without a parameter, the authors leave the one token out.
        ("spatial", "one_token", "none", False),
        ("spatial", "no_token", "none", False),
        # LongVA's code does not look at the position.
        ("unires", "grid", "none", False),
    ],
)
def test_newlines(merge: str, position: str, newline: str, stored: bool) -> None:
    content = LLAVA_VIDEO | {"mm_patch_merge_type": merge, "mm_newline_position": position}
    config = config_from_json(content | {"mm_spatial_pool_mode": "average"})
    assert config.visual_tokens.newline == newline
    assert config.visual_tokens.stores_newline == stored
    assert ("newline" in abstract_model(config)[1]) == stored
    assert config.tokens_per_frame == 13 * 13 + {"grid": 13, "frame": 1}.get(newline, 0)


@pytest.mark.parametrize("position", ["grid", "frame"])
def test_a_newline_that_the_merge_type_does_not_have_is_refused(position: str) -> None:
    content = LLAVA_VIDEO | {"mm_patch_merge_type": "spatial", "mm_newline_position": position}
    with pytest.raises(InputError, match=f'^mm_newline_position is "{position}", but mm_patch'):
        config_from_json(content)


def test_pool_and_stride() -> None:
    average = config_from_json(LLAVA_VIDEO | {"mm_spatial_pool_mode": "average"})
    assert average.tokens_per_frame == 182
    assert config_from_json(LONGVA | {"mm_spatial_pool_stride": 4}).tokens_per_frame == 36
    # LLaVA's code does not look at the stride; LongVA's does.
    for content in (
        without(LLAVA_VIDEO, "mm_spatial_pool_stride"),
        LLAVA_VIDEO | {"mm_spatial_pool_stride": None},
    ):
        assert config_from_json(content).visual_tokens.stride == 2


def test_a_newline_that_is_not_used_is_kept_and_gets_no_gradient() -> None:
    content = small_model_json(vocab_rows=20) | {"mm_newline_position": "no_token"}
    content |= {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = config_from_json(content)
    graph, shapes = abstract_model(config)
    assert shapes["newline"].shape == (32,)
    frames = jnp.ones((2, 3, 56, 56, 3), jnp.uint8)

    def total(params):
        model: VideoLMM = nnx.merge(graph, params)
        tokens = model.encode_videos(frames)
        assert tokens.shape == (2, config.tokens_per_video(3), 32) == (2, 12, 32)
        return jnp.sum(tokens**2)

    grads = jax.jit(jax.grad(total), compiler_options=QUICK)(random_params(config))
    assert not jnp.any(grads["newline"])
    assert jnp.any(grads["projector"]["second"]["bias"])
    with pytest.raises(ValueError, match="unused_newline goes with newline 'none'"):
        VisualTokensConfig(pool="max", stride=2, newline="grid", unused_newline=True)


# ------------------------------------------------------------------------------- the decoder


def test_vocabulary_rows_can_be_given() -> None:
    assert config_from_json(LONGVA).language.vocab_rows == 152064
    assert config_from_json(LONGVA, vocab_rows=151646).language.vocab_rows == 151646


def test_missing_fields_mean_what_they_mean_to_the_authors_code() -> None:
    content = without(LLAVA_VIDEO, *QWEN2_DEFAULTS, "rope_theta", "mm_newline_position")
    content = without(content, "mm_resampler_type", "mm_vision_select_feature", "add_faster_video")
    config = config_from_json(content)
    assert config.visual_tokens.newline == "one_token"
    assert config.language == LanguageConfig(
        vocab_rows=151936,
        width=4096,
        mlp_width=22016,
        layers=32,
        heads=32,
        kv_heads=32,
        head_width=128,
        rope_theta=1e4,
        norm_eps=1e-6,
        qkv_bias=True,
        tied_embeddings=False,
    )


def test_the_decoder_s_defaults_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    found = transformers.Qwen2Config()
    assert {key: getattr(found, key) for key in QWEN2_DEFAULTS} == QWEN2_DEFAULTS
    assert found.rope_parameters["rope_theta"] == part_configs.DEFAULT_ROPE_THETA


def test_heads() -> None:
    assert config_from_json(LLAVA_VIDEO | {"num_key_value_heads": None}).language.kv_heads == 28
    assert config_from_json(LLAVA_VIDEO | {"head_dim": 64}).language.head_width == 64
    assert config_from_json(LLAVA_VIDEO | {"head_dim": None}).language.head_width == 128


def test_rope_as_newer_libraries_write_it() -> None:
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    content = without(LLAVA_VIDEO, "rope_theta")
    assert config_from_json(content | new).language.rope_theta == 5e5
    assert config_from_json(content | {"rope_parameters": None}).language.rope_theta == 1e4
    no_theta = {"rope_parameters": {"rope_type": "default"}, "rope_theta": 5e5}
    assert config_from_json(content | no_theta).language.rope_theta == 5e5
    with pytest.raises(InputError, match="^rope_theta is 1e.06, but rope_parameters.rope_theta is"):
        config_from_json(LLAVA_VIDEO | new)
    scaled = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}}
    with pytest.raises(InputError, match='^rope_parameters.rope_type is "yarn"; only "default"'):
        config_from_json(LLAVA_VIDEO | scaled)


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ALL_FIELDS)
def test_a_field_is_in_one_table(name: str) -> None:
    fields: Fields = ALL_FIELDS[name]
    tables = (fields.read, set(fields.implemented), fields.without_effect)
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert set(fields.defaults) <= set().union(*tables)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mm_resampler_type": "qformer"}, 'mm_resampler_type is "qformer"; only null is impl'),
        ({"mm_projector_type": "linear"}, 'mm_projector_type is "linear"; only "mlp2x_gelu" is'),
        ({"use_sliding_window": True}, "use_sliding_window is true; only false is implemented"),
        ({"use_sliding_window": 0}, "use_sliding_window is 0; only false is implemented"),
        ({"layer_types": ["sliding_attention"]}, 'layer_types is ["sliding_attention"]; only "fu'),
        ({"rope_scaling": {"type": "linear"}}, 'rope_scaling is {"type": "linear"}; only null'),
        ({"rope_parameters": 3}, "rope_parameters is 3; it must be an object"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"; only "silu"'),
        ({"s2": True}, "s2 is true; only false"),
        ({"mm_newline_position": "row"}, 'mm_newline_position is "row"; only "grid", "frame", '),
        ({"mm_spatial_pool_mode": "conv"}, 'mm_spatial_pool_mode is "conv"; only "bilinear", '),
        ({"mm_patch_merge_type": "flat"}, 'mm_patch_merge_type is "flat"; only "spatial_unpad", '),
        ({"mm_patch_merge_type": "unires"}, 'mm_spatial_pool_mode is "bilinear", which mm_patch'),
        ({"mm_spatial_pool_stride": 3}, "mm_spatial_pool_stride is 3; only 2 is implemented"),
        ({"add_faster_video": True}, "add_faster_video is true"),
        ({"mm_vision_tower": "tiny"}, 'mm_vision_tower is "tiny"; only "google/siglip'),
        ({"architectures": ["LlavaLlamaForCausalLM"]}, 'architectures is ["LlavaLlamaForCausal'),
        ({"tie_word_embeddings": None}, "tie_word_embeddings is null; only false, true are"),
        ({"mm_hidden_size": 7}, "mm_hidden_size is 7, but the vision tower's width is 1152"),
        ({"hidden_sise": 3}, "hidden_sise is not a known field; did you mean hidden_size?"),
        ({"hidden_size": "big"}, 'hidden_size is "big"; it must be a whole number above 0'),
        ({"hidden_size": True}, "hidden_size is true; it must be a whole number above 0"),
        ({"rope_theta": 0}, "rope_theta is 0; it must be a number above 0"),
        ({"num_key_value_heads": 5}, "num_attention_heads 28 is not a multiple of num_key_value"),
        ({"hidden_size": 3585}, "hidden_size 3585 is not a multiple of num_attention_heads 28"),
        ({"vision_config": "siglip"}, 'vision_config is "siglip"; it must be an object'),
        ({"vision_config": {"num_hidden_layers": 1}}, "vision_config.model_type is missing"),
        ({"vision_config": {"depth": 1}}, "vision_config.depth is not a known field"),
        ({"vision_config": {"num_channels": 4}}, "vision_config.num_channels is 4; only 3 is"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        config_from_json(LLAVA_VIDEO | fields)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        (LLAVA_VIDEO, "mm_spatial_pool_mode", "mm_spatial_pool_mode is missing and has no default"),
        (LLAVA_VIDEO, "mm_patch_merge_type", 'mm_patch_merge_type is missing, which means "flat"'),
        (LLAVA_VIDEO, "mm_projector_type", 'mm_projector_type is missing, which means "linear"; '),
        (LONGVA, "mm_spatial_pool_stride", "mm_spatial_pool_stride is missing"),
        (LONGVA, "mm_vision_select_layer", "mm_vision_select_layer is missing"),
    ],
)
def test_what_the_authors_code_needs_must_be_there(
    content: dict[str, Any], key: str, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        config_from_json(without(content, key))
    assert str(caught.value).startswith(said)


def test_checkpoints_of_other_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="text-only checkpoint; a LLaVA-Video or LongVA"):
        model_config({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})
    other = {"model_type": "llava_next_video", "text_config": {}, "vision_config": {}}
    with pytest.raises(InputError, match='model_type is "llava_next_video"; only "llava_onevisi'):
        model_config(other)


# ---------------------------------------------------------------------------------- the way back


def sizes(most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most)


@st.composite
def model_configs(draw: st.DrawFn) -> VideoLMMConfig:
    """Any model that the authors' layout can describe."""
    kind = draw(st.sampled_from(sorted(FAMILIES)))
    family = FAMILIES[kind]
    layers = draw(sizes(30))
    vision_heads, heads, kv_heads = draw(sizes(4)), draw(sizes(4)), draw(sizes(4))
    tied = draw(st.booleans())
    pool, newline = draw(st.sampled_from(POOLS)), draw(st.sampled_from(NEWLINES))
    unused = newline == "none" and draw(st.booleans())
    free_stride = newline == "none" and not unused and pool != "bilinear"
    return VideoLMMConfig(
        vision=VisionConfig(
            image_size=draw(sizes(400)),
            patch_size=draw(sizes(16)),
            width=vision_heads * draw(sizes(64)),
            mlp_width=draw(sizes(512)),
            heads=vision_heads,
            layers=layers,
            layers_used=draw(sizes(layers)) if family.class_token else layers,
            norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
            activation=draw(st.sampled_from(sorted(GELUS))),
            **vars(family),
        ),
        language=LanguageConfig(
            vocab_rows=draw(sizes(152064)),
            width=heads * kv_heads * draw(sizes(128)),
            mlp_width=draw(sizes(512)),
            layers=draw(sizes(80)),
            heads=heads * kv_heads,
            kv_heads=kv_heads,
            head_width=draw(sizes(128)),
            rope_theta=draw(st.floats(1.0, 1e12)),
            norm_eps=draw(st.floats(1e-9, 1e-3)),
            qkv_bias=True,
            tied_embeddings=tied,
        ),
        visual_tokens=VisualTokensConfig(
            pool=pool,
            stride=draw(sizes(4)) if free_stride else 2,
            newline=newline,
            unused_newline=unused,
        ),
    )


@settings(max_examples=60, deadline=None)
@given(config=model_configs())
def test_settings_come_back_from_the_json_written_of_them(config: VideoLMMConfig) -> None:
    assert config_from_json(json.loads(json.dumps(llava_json(config)))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_a_published_model_is_described_by_the_name_of_its_tower(name: str) -> None:
    content = preset_json(name)
    written = llava_json(config_from_json(content))
    assert "vision_config" not in written
    shared = written.keys() & content.keys() - {"model_type", "tokenizer_model_max_length"}
    assert len(shared) > 20
    assert {key: written[key] for key in shared} == {key: content[key] for key in shared}


def test_what_a_onevision_checkpoint_says_of_images_and_tokens_comes_along() -> None:
    source = {
        "image_grid_pinpoints": [[1, 2]],
        "vision_aspect_ratio": "anyres_max_4",
        "text_config": {"bos_token_id": 5, "max_position_embeddings": 77, "hidden_size": 1},
    }
    written = llava_json(config_from_json(LLAVA_VIDEO), onevision=source)
    assert written["image_grid_pinpoints"] == [[1, 2]]
    assert written["image_aspect_ratio"] == "anyres_max_4"
    assert (written["bos_token_id"], written["max_position_embeddings"]) == (5, 77)
    assert config_from_json(written) == config_from_json(LLAVA_VIDEO)


def test_what_the_layout_has_no_place_for_is_refused() -> None:
    config = config_from_json(LLAVA_VIDEO)
    for changed, said in (
        (
            replace(config, vision=replace(config.vision, layers_used=25)),
            "stores 26 layers and uses 25",
        ),
        (
            replace(config, vision=replace(config.vision, patch_bias=False)),
            "neither SigLIP nor CLIP",
        ),
        (
            replace(config, language=replace(config.language, qkv_bias=False)),
            "no q/k/v biases",
        ),
        (
            replace(config, visual_tokens=replace(config.visual_tokens, stride=3)),
            "have stride 3",
        ),
    ):
        with pytest.raises(InputError, match=said):
            llava_json(changed)
