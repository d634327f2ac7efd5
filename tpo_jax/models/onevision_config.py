"""Transformers' config.json of LlavaOnevisionForConditionalGeneration and our settings, both ways.

Its video path is fixed by code: bilinear pooling by 2, one newline at the end of the video. Strict
as checkpoint_config.py is. Defaults are those of the classes in transformers 5.23.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tpo_jax.errors import InputError
from tpo_jax.models.config_fields import (
    Fields,
    Json,
    json_object,
    layers_until,
    one_of,
    whole_number,
    words,
)
from tpo_jax.models.part_configs import (
    LIBRARY_FIELDS,
    QWEN2_DEFAULTS,
    QWEN2_IMPLEMENTED,
    QWEN2_READ,
    QWEN2_WITHOUT_EFFECT,
    TOWER_IMPLEMENTED,
    TOWER_READ,
    TOWER_WITHOUT_EFFECT,
    decoder_config,
    decoder_json,
    tower_config,
    tower_json,
)
from tpo_jax.models.video_lmm import VideoLMMConfig
from tpo_jax.models.vision import VisionConfig
from tpo_jax.models.visual_tokens import VisualTokensConfig

MODEL_TYPE = "llava_onevision"
ARCHITECTURE = "LlavaOnevisionForConditionalGeneration"
TOWER = "siglip_vision_model"
VISUAL_TOKENS = VisualTokensConfig(pool="bilinear", stride=2, newline="one_token")

FIELDS = Fields(
    read=words("text_config tie_word_embeddings vision_config vision_feature_layer"),
    implemented={
        "architectures": ([ARCHITECTURE],),
        "model_type": (MODEL_TYPE,),
        "multimodal_projector_bias": (True,),
        # Transformers' "gelu" is the exact one, as in the authors' projector.
        "projector_hidden_act": ("gelu",),
        "vision_feature_select_strategy": ("full",),
    },
    without_effect=LIBRARY_FIELDS
    | words(
        """bos_token_id eos_token_id ignore_index image_grid_pinpoints image_token_id
        image_token_index pad_token_id use_cache use_image_newline_parameter video_token_id
        video_token_index vision_aspect_ratio"""
    ),
    defaults={
        "model_type": MODEL_TYPE,
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    },
)
TEXT_FIELDS = Fields(
    read=QWEN2_READ,
    implemented={**QWEN2_IMPLEMENTED, "model_type": ("qwen2",)},
    without_effect=QWEN2_WITHOUT_EFFECT | words("architectures"),
    defaults={**QWEN2_DEFAULTS, "model_type": "qwen2"},
)
TOWER_FIELDS = Fields(
    read=TOWER_READ - words("model_type"),
    implemented={**TOWER_IMPLEMENTED, "model_type": (TOWER,)},
    without_effect=TOWER_WITHOUT_EFFECT,
    defaults={
        "attention_dropout": 0.0,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 768,
        "image_size": 224,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-6,
        "model_type": TOWER,
        "num_attention_heads": 12,
        "num_channels": 3,
        "num_hidden_layers": 12,
        "patch_size": 16,
        "vision_use_head": True,
    },
)


def is_onevision(json: Json) -> bool:
    """Whether a config.json is that of a LlavaOnevision model of transformers."""
    return json.get("model_type") == MODEL_TYPE or json.get("architectures") == [ARCHITECTURE]


def config_from_onevision(json: Json, *, vocab_rows: int | None = None) -> VideoLMMConfig:
    """Settings from the config.json of a LlavaOnevision model.

    Args:
      json: its content, as any transformers from 4.45 to 5.23 writes it.
      vocab_rows: rows of the stored embedding where they differ from text_config.vocab_size.

    Raises:
      InputError: a field is unknown, missing, or has a value that is not implemented; names it.
    """
    filled = FIELDS.fill(json)
    text = TEXT_FIELDS.fill(json_object(filled, "text_config"), "text_config.")
    tower = TOWER_FIELDS.fill(json_object(filled, "vision_config"), "vision_config.")
    layers = whole_number(tower, "num_hidden_layers", "vision_config.")
    # Some versions keep it here and some there; where either says so, the embeddings are tied.
    tied = [
        one_of(place, "tie_word_embeddings", (False, True), where)
        for place, where in ((filled, ""), (text, "text_config."))
    ]
    return VideoLMMConfig(
        vision=tower_config(
            tower,
            "vision_config.",
            layers=layers,
            layers_used=layers_until(filled, "vision_feature_layer", layers),
        ),
        language=decoder_config(
            text, "text_config.", tied_embeddings=any(tied), vocab_rows=vocab_rows
        ),
        visual_tokens=VISUAL_TOKENS,
    )


def onevision_json(
    config: VideoLMMConfig,
    *,
    image_token: int,
    video_token: int,
    image_grid_pinpoints: Sequence[Sequence[int]] | None,
    dtype: str,
    accept_other_newlines: bool = False,
) -> dict[str, Any]:
    """The config.json with which transformers opens a model as LlavaOnevision.

    Args:
      config: the settings. Rows of padding, remat and frames_per_chunk are no part of a checkpoint.
      image_token: id of the token that stands for an image.
      video_token: id of the token that stands for a video.
      image_grid_pinpoints: the resolutions (height, width) that images may be cut into; None for
        one piece of the tower's size.
      dtype: in which the tensors are stored, "bfloat16" for example.
      accept_other_newlines: write it although the model places newlines in a video otherwise than
        transformers does, which puts one at the end. Its answers there will differ.

    Raises:
      InputError: transformers' class cannot express such a model.
    """
    _check_tokens(config.visual_tokens, accept_other_newlines)
    if image_grid_pinpoints is None:
        image_grid_pinpoints = [[config.vision.image_size] * 2]
    elif isinstance(image_grid_pinpoints, str):
        raise InputError(
            f'image_grid_pinpoints is "{image_grid_pinpoints}"; it must be a list of pairs'
        )
    rows = config.language.vocab_rows
    if not (0 <= image_token < rows and 0 <= video_token < rows and image_token != video_token):
        raise InputError(
            f"image token {image_token} and video token {video_token} must be two of the "
            f"vocabulary's {rows} rows"
        )
    return {
        "architectures": [ARCHITECTURE],
        "dtype": dtype,
        "image_grid_pinpoints": [list(size) for size in image_grid_pinpoints],
        "image_token_index": image_token,
        "model_type": MODEL_TYPE,
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "text_config": {**decoder_json(config.language), "dtype": dtype, "model_type": "qwen2"},
        "tie_word_embeddings": config.language.tied_embeddings,
        "video_token_index": video_token,
        "vision_aspect_ratio": "anyres_max_9",
        "vision_config": {**_tower_fields(config.vision), "dtype": dtype},
        "vision_feature_layer": config.vision.layers_used - config.vision.layers - 1,
        "vision_feature_select_strategy": "full",
    }


def _tower_fields(vision: VisionConfig) -> Mapping[str, Any]:
    described = tower_json(vision)
    if described["model_type"] != TOWER:
        raise InputError(
            f"the vision tower is a {described['model_type']}; transformers' LlavaOnevision is "
            "written with SigLIP only; export in the authors' layout"
        )
    return described | {"attention_dropout": 0.0, "num_channels": 3, "vision_use_head": False}


def _check_tokens(tokens: VisualTokensConfig, accept_other_newlines: bool) -> None:
    if (tokens.pool, tokens.stride) != (VISUAL_TOKENS.pool, VISUAL_TOKENS.stride):
        raise InputError(
            f'the visual tokens are pooled by "{tokens.pool}", stride {tokens.stride}; '
            f'transformers\' LlavaOnevision has only "{VISUAL_TOKENS.pool}", stride '
            f"{VISUAL_TOKENS.stride}; export in the authors' layout"
        )
    if not tokens.stores_newline:
        raise InputError(
            "the model has no newline, without which transformers' LlavaOnevision does not load; "
            "export in the authors' layout"
        )
    if tokens.newline != VISUAL_TOKENS.newline and not accept_other_newlines:
        raise InputError(
            f'the newlines of a video are placed "{tokens.newline}"; transformers\' '
            "LlavaOnevision puts one at the end of the video, so its answers will differ; accept "
            "that (accept_other_newlines) or export in the authors' layout"
        )
