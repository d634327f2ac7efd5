"""LlavaOnevision's config.json against transformers' own classes, both ways."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_jax.errors import InputError
from tpo_jax.models import onevision_config
from tpo_jax.models.checkpoint_config import config_from_json, llava_json, model_config
from tpo_jax.models.onevision_config import config_from_onevision, is_onevision, onevision_json
from tpo_jax.models.presets import preset_json
from tpo_jax.models.video_lmm import VideoLMMConfig, abstract_model
from tpo_jax.models.visual_tokens import VisualTokensConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# As transformers 4.45 writes it: what has the default of its class is left out of the nested
# objects, and rope is a plain number.
OLD: dict[str, Any] = {
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "ignore_index": -100,
    "image_grid_pinpoints": [[384, 384], [384, 768]],
    "image_token_index": 151646,
    "model_type": "llava_onevision",
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "Qwen/Qwen2-0.5B-Instruct",
        "architectures": ["Qwen2ForCausalLM"],
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_window_layers": 24,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 152000,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.45.0.dev0",
    "use_image_newline_parameter": True,
    "video_token_index": 151647,
    "vision_aspect_ratio": "anyres_max_9",
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 26,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
WRITING: dict[str, Any] = {"image_token": 3, "video_token": 4, "dtype": "bfloat16"}
WRITING["image_grid_pinpoints"] = [[384, 384], [384, 768]]


def small_json(**changed: Any) -> dict[str, Any]:
    """A small model's config.json; `text__x` and `vision__x` change x of the nested objects."""
    content: dict[str, Any] = {
        "model_type": "llava_onevision",
        "text_config": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2},
        "vision_config": {"hidden_size": 24, "num_attention_heads": 3, "vision_use_head": False},
    }
    for name, value in changed.items():
        place, _, key = name.rpartition("__")
        (content[f"{place}_config"] if place else content)[key] = value
    return content


def assert_same_settings(ours: VideoLMMConfig, theirs: Any) -> None:
    """Every number of ours is what their class holds."""
    text, vision = theirs.text_config, theirs.vision_config
    found = ours.language
    assert (found.vocab_rows, found.width) == (text.vocab_size, text.hidden_size)
    assert (found.mlp_width, found.layers) == (text.intermediate_size, text.num_hidden_layers)
    assert (found.heads, found.kv_heads) == (text.num_attention_heads, text.num_key_value_heads)
    # As their attention does it.
    assert found.head_width == getattr(text, "head_dim", text.hidden_size // found.heads)
    assert found.rope_theta == text.rope_parameters["rope_theta"]
    assert text.rope_parameters["rope_type"] == "default"
    assert found.norm_eps == text.rms_norm_eps
    assert found.tied_embeddings == theirs.tie_word_embeddings
    tower = ours.vision
    assert (tower.width, tower.mlp_width) == (vision.hidden_size, vision.intermediate_size)
    assert (tower.heads, tower.layers) == (vision.num_attention_heads, vision.num_hidden_layers)
    assert (tower.image_size, tower.patch_size) == (vision.image_size, vision.patch_size)
    assert (tower.norm_eps, tower.activation) == (vision.layer_norm_eps, vision.hidden_act)
    states = list(range(vision.num_hidden_layers + 1))
    assert tower.layers_used == states[theirs.vision_feature_layer]
    assert not vision.vision_use_head
    assert (theirs.vision_feature_select_strategy, theirs.projector_hidden_act) == ("full", "gelu")
    assert theirs.multimodal_projector_bias
    assert (tower.class_token, tower.pre_norm, tower.patch_bias) == (False, False, True)
    assert ours.visual_tokens == VisualTokensConfig(
        pool="bilinear", stride=2, newline="one_token", unused_newline=False
    )


def opened(content: dict[str, Any]) -> Any:
    """The config as transformers reads it from a file."""
    return transformers.LlavaOnevisionConfig.from_dict(json.loads(json.dumps(content)))


def sizes(most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most)


@st.composite
def their_configs(draw: st.DrawFn) -> Any:
    """Objects of transformers' classes, of any shape that we implement."""
    kv_heads, layers, vision_heads = draw(sizes(3)), draw(sizes(5)), draw(sizes(4))
    heads = kv_heads * draw(sizes(4))
    vision = transformers.SiglipVisionConfig(
        hidden_size=vision_heads * draw(sizes(32)),
        intermediate_size=draw(sizes(128)),
        num_hidden_layers=layers,
        num_attention_heads=vision_heads,
        image_size=draw(sizes(400)),
        patch_size=draw(sizes(16)),
        hidden_act=draw(st.sampled_from(["gelu_pytorch_tanh", "quick_gelu", "gelu"])),
        layer_norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
        vision_use_head=False,
    )
    head_dim = draw(st.sampled_from([None, 6, 8]))
    text = transformers.Qwen2Config(
        vocab_size=draw(st.integers(10, 500)),
        # The library itself wants an even number of rotated dimensions.
        hidden_size=heads * 2 * draw(sizes(16)),
        intermediate_size=draw(sizes(128)),
        num_hidden_layers=draw(sizes(5)),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rope_parameters={"rope_type": "default", "rope_theta": draw(st.floats(10.0, 1e9))},
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
        tie_word_embeddings=draw(st.booleans()),
        **({} if head_dim is None else {"head_dim": head_dim}),
    )
    return transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=draw(st.integers(-layers, -1) | st.integers(1, layers)),
        tie_word_embeddings=draw(st.booleans()),
    )


# ------------------------------------------------------------------------------------- reading


@settings(max_examples=15, deadline=None)
@given(theirs=their_configs())
def test_settings_are_what_their_classes_hold(theirs: Any) -> None:
    content = json.loads(theirs.to_json_string())
    assert is_onevision(content)
    assert_same_settings(model_config(content), theirs)


@settings(max_examples=20, deadline=None)
@given(left_out=st.sets(st.sampled_from(sorted(onevision_config.TOWER_FIELDS.defaults))))
def test_what_a_file_leaves_out_has_the_default_of_the_class(left_out: set[str]) -> None:
    content = small_json()
    tower: dict[str, Any] = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3}
    tower |= {"image_size": 30, "patch_size": 5, "intermediate_size": 7, "layer_norm_eps": 1e-3}
    tower = {key: value for key, value in tower.items() if key not in left_out}
    content["vision_config"] = tower | {"vision_use_head": False}
    assert_same_settings(config_from_onevision(content), opened(content))


def test_defaults_are_those_of_transformers() -> None:
    found = transformers.SiglipVisionConfig()
    wanted = onevision_config.TOWER_FIELDS.defaults
    assert {key: getattr(found, key) for key in wanted} == wanted
    whole, wanted = transformers.LlavaOnevisionConfig(), onevision_config.FIELDS.defaults
    assert {key: getattr(whole, key) for key in wanted} == wanted
    assert whole.text_config.model_type == onevision_config.TEXT_FIELDS.defaults["model_type"]
    assert_same_settings(config_from_onevision(small_json()), opened(small_json()))


def test_a_file_that_transformers_saves(tmp_path: Path) -> None:
    theirs = opened(OLD)
    theirs.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in content["text_config"]  # the newer form
    assert content["text_config"]["layer_types"] == ["full_attention"] * 24
    assert_same_settings(model_config(content), theirs)


def test_a_file_of_an_older_transformers() -> None:
    config = model_config(OLD)
    assert_same_settings(config, opened(OLD))
    language = config.language
    assert (language.vocab_rows, language.rope_theta, language.tied_embeddings) == (
        152000,
        1e6,
        True,
    )
    assert config.tokens_per_video(32) == 32 * 14 * 14 + 1
    assert model_config(OLD, vocab_rows=152128).language.vocab_rows == 152128
    # The same model as the authors publish it.
    published = config_from_json(preset_json("llava_onevision_0_5b"))
    assert replace(config, language=replace(language, vocab_rows=151936)) == published


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("below", [False, True])
def test_embeddings_are_tied_where_either_place_says_so(above: bool, below: bool) -> None:
    content = small_json(tie_word_embeddings=above, text__tie_word_embeddings=below)
    assert config_from_onevision(content).language.tied_embeddings == (above or below)
    assert opened(content).tie_word_embeddings == (above or below)


def test_which_files_are_of_this_layout() -> None:
    assert is_onevision({"architectures": ["LlavaOnevisionForConditionalGeneration"]})
    assert not is_onevision(preset_json("llava_onevision_7b"))
    assert model_config(preset_json("longva_7b")).vision.class_token


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"projector_hidden_act": "relu"}, 'projector_hidden_act is "relu"; only "gelu" is impl'),
        ({"vision_feature_select_strategy": "default"}, 'vision_feature_select_strategy is "defa'),
        ({"multimodal_projector_bias": False}, "multimodal_projector_bias is false; only true is"),
        ({"vision_feature_layer": [-1, -2]}, "vision_feature_layer is [-1, -2]; it must be one wh"),
        ({"vision_feature_layer": -13}, "vision_feature_layer is -13; it must be one whole number"),
        ({"vision_feature_layer": 0}, "vision_feature_layer is 0; it must be one whole number"),
        ({"visual_feature_layer": -1}, "visual_feature_layer is not a known field; did you mean v"),
        ({"quantization_config": {}}, "quantization_config is not a known field"),
        ({"text_config": None}, "text_config is null; it must be an object"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; only false, true are"),
        ({"text__model_type": "llama"}, 'text_config.model_type is "llama"; only "qwen2" is'),
        ({"text__use_sliding_window": True}, "text_config.use_sliding_window is true; only false"),
        ({"text__rope_scaling": {"factor": 2}}, 'text_config.rope_scaling is {"factor": 2}; only'),
        (
            {"text__rope_parameters": {"rope_type": "yarn"}},
            'text_config.rope_parameters.rope_type is "yarn"; only "default" is implemented',
        ),
        (
            {"text__rope_parameters": {"partial_rotary_factor": 0.5}},
            "text_config.rope_parameters.partial_rotary_factor is not a known field",
        ),
        ({"text__num_key_value_heads": 3}, "text_config.num_attention_heads 4 is not a multiple"),
        ({"text__atention_dropout": 0.0}, "text_config.atention_dropout is not a known field; did"),
        ({"vision__model_type": "clip_vision_model"}, 'vision_config.model_type is "clip_vision_m'),
        ({"vision__vision_use_head": True}, "vision_config.vision_use_head is true; only false"),
        ({"vision__image_size": [384, 384]}, "vision_config.image_size is [384, 384]; it must be"),
        ({"vision__hidden_act": "relu"}, 'vision_config.hidden_act is "relu"; only "gelu_pytorch'),
        ({"vision__num_channels": 1}, "vision_config.num_channels is 1; only 3 is implemented"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        config_from_onevision(small_json(**changed))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named() -> None:
    for key in ("text_config", "vision_config"):
        with pytest.raises(InputError, match=f"^{key} is missing$"):
            config_from_onevision({k: v for k, v in small_json().items() if k != key})
    content = small_json()
    del content["vision_config"]["vision_use_head"]
    with pytest.raises(InputError, match="vision_use_head is missing, which means true; only fal"):
        config_from_onevision(content)


# ------------------------------------------------------------------------------------- writing


@settings(max_examples=15, deadline=None)
@given(theirs=their_configs())
def test_transformers_opens_what_is_written(theirs: Any) -> None:
    config = model_config(json.loads(theirs.to_json_string()))
    written = onevision_json(config, **WRITING)
    again = opened(written)
    assert_same_settings(config, again)
    assert model_config(json.loads(json.dumps(written))) == config
    # And what transformers makes of it when it saves.
    assert model_config(json.loads(again.to_json_string())) == config


def test_the_rest_of_what_is_written() -> None:
    theirs = opened(onevision_json(model_config(small_json()), **WRITING))
    assert (theirs.image_token_index, theirs.video_token_index) == (3, 4)
    assert theirs.image_grid_pinpoints == [[384, 384], [384, 768]]
    assert theirs.dtype == theirs.text_config.dtype == theirs.vision_config.dtype == torch.bfloat16
    assert theirs.architectures == ["LlavaOnevisionForConditionalGeneration"]
    tied = onevision_json(model_config(small_json(tie_word_embeddings=True)), **WRITING)
    # Older versions read the one, newer ones the other.
    assert tied["tie_word_embeddings"] and tied["text_config"]["tie_word_embeddings"]
    one_piece = onevision_json(
        model_config(small_json()), **(WRITING | {"image_grid_pinpoints": None})
    )
    assert one_piece["image_grid_pinpoints"] == [[224, 224]]


@pytest.mark.parametrize("tied", [False, True])
def test_their_model_has_as_many_parameters_as_ours(tied: bool) -> None:
    config = model_config(small_json(text__num_hidden_layers=2, tie_word_embeddings=tied))
    with torch.device("meta"):
        theirs = transformers.LlavaOnevisionForConditionalGeneration(
            opened(onevision_json(config, **WRITING))
        )
        theirs.tie_weights()
    ours = sum(leaf.size for leaf in jax.tree.leaves(abstract_model(config)[1]))
    assert ours == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize("name", ["llava_onevision_0_5b", "llava_onevision_7b"])
def test_a_published_model_goes_from_layout_to_layout_and_back(name: str) -> None:
    config = config_from_json(preset_json(name))
    written = onevision_json(config, **WRITING)
    assert model_config(llava_json(model_config(written), onevision=written)) == config
    assert "vision_config" not in llava_json(model_config(written))


@settings(max_examples=15, deadline=None)
@given(theirs=their_configs())
def test_the_authors_layout_says_the_same(theirs: Any) -> None:
    config = model_config(json.loads(theirs.to_json_string()))
    if config.vision.layers_used == config.vision.layers:
        assert model_config(llava_json(config)) == config
    else:
        with pytest.raises(InputError, match="no place for SigLIP layers that are not used"):
            llava_json(config)


@pytest.mark.parametrize("position", ["grid", "frame", "no_token"])
def test_other_newlines_are_written_only_when_that_is_accepted(position: str) -> None:
    config = config_from_json(preset_json("llava_video_7b") | {"mm_newline_position": position})
    with pytest.raises(InputError, match="one at the end of the video, so its answers will differ"):
        onevision_json(config, **WRITING)
    written = onevision_json(config, **WRITING, accept_other_newlines=True)
    one_token = VisualTokensConfig(pool="bilinear", stride=2, newline="one_token")
    assert model_config(written) == replace(config, visual_tokens=one_token)


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("longva_7b", {}, 'pooled by "average", stride 2; transformers'),
        ("llava_onevision_7b", {"mm_spatial_pool_mode": "max"}, 'pooled by "max", stride 2;'),
        ("llava_onevision_7b", {"mm_patch_merge_type": "spatial"}, "the model has no newline"),
    ],
)
def test_what_transformers_cannot_express_is_refused(
    name: str, fields: dict[str, Any], said: str
) -> None:
    config = config_from_json(preset_json(name) | fields)
    with pytest.raises(InputError, match=said):
        onevision_json(config, **WRITING, accept_other_newlines=True)


def test_parts_that_transformers_cannot_express_are_refused() -> None:
    config = config_from_json(preset_json("llava_onevision_7b"))
    clip = config_from_json(preset_json("longva_7b")).vision
    with pytest.raises(InputError, match="the vision tower is a clip_vision_model"):
        onevision_json(replace(config, vision=clip), **WRITING)
    llama = replace(config.language, qkv_bias=False)
    with pytest.raises(InputError, match="it is not Qwen2"):
        onevision_json(replace(config, language=llama), **WRITING)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_token": 151936}, "image token 151936 and video token 4 must be two of the voca"),
        ({"video_token": -1}, "image token 3 and video token -1 must be two"),
        ({"video_token": 3}, "image token 3 and video token 3 must be two"),
        ({"image_grid_pinpoints": "(1x1)"}, r'image_grid_pinpoints is "\(1x1\)"; it must be a li'),
    ],
)
def test_tokens_and_resolutions_that_do_not_fit_are_refused(
    fields: dict[str, Any], said: str
) -> None:
    config = config_from_json(preset_json("llava_onevision_0_5b"))
    with pytest.raises(InputError, match=said):
        onevision_json(config, **(WRITING | fields))
