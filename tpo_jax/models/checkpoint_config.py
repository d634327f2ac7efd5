"""The authors' config.json (LLaVA-Video, LLaVA-OneVision, LongVA) and our settings, both ways.

Strict: what a checkpoint asks for and is not implemented here is refused, and so is every field
that is not known. What a missing field means is what it means to the authors' code, where that is
implemented; a field that their code cannot do without must be there.
"""

from collections.abc import Mapping
from typing import Any, Literal

from tpo_jax.errors import InputError
from tpo_jax.models.config_fields import (
    Fields,
    Json,
    json_object,
    layers_until,
    one_of,
    required,
    whole_number,
    words,
)
from tpo_jax.models.onevision_config import config_from_onevision, is_onevision
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
from tpo_jax.models.visual_tokens import POOLS, VisualTokensConfig

ImageMode = Literal["squash", "shortest_edge_crop"]

# The defaults are those of getattr in the authors' code and of the Qwen2Config that they pin.
FIELDS = Fields(
    read=QWEN2_READ
    | words(
        """mm_hidden_size mm_newline_position mm_patch_merge_type mm_spatial_pool_mode
        mm_spatial_pool_stride mm_vision_select_layer mm_vision_tower vision_config"""
    ),
    implemented={
        **QWEN2_IMPLEMENTED,
        "add_faster_video": (False,),
        "architectures": (["LlavaQwenForCausalLM"],),
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_resampler_type": (None,),
        "mm_use_im_start_end": (False,),
        "mm_vision_select_feature": ("patch",),
        "model_type": ("llava_qwen", "llava", "qwen2"),
        "s2": (False,),
        "use_mm_proj": (True,),
        "use_pos_skipping": (False,),
    },
    # mm_use_im_patch_token only adds a token to the tokenizer that no prompt holds.
    without_effect=LIBRARY_FIELDS
    | QWEN2_WITHOUT_EFFECT
    | words(
        """add_time_instruction delay_load faster_token_stride force_sample frames_upbound
        freeze_mm_mlp_adapter freeze_mm_vision_resampler image_aspect_ratio image_crop_resolution
        image_grid_pinpoints image_split_resolution image_token_index max_sequence_length
        mm_projector_lr mm_spatial_pool_out_channels mm_tunable_parts mm_use_im_patch_token
        mm_vision_tower_lr pos_skipping_range s2_scales tokenizer_model_max_length
        tokenizer_padding_side tune_mm_mlp_adapter tune_mm_vision_resampler
        unfreeze_mm_vision_tower video_token_index vision_tower_pretrained"""
    ),
    defaults={
        **QWEN2_DEFAULTS,
        "add_faster_video": False,
        "mm_newline_position": "one_token",
        "mm_patch_merge_type": "flat",
        "mm_projector_type": "linear",
        "mm_resampler_type": None,
        "mm_vision_select_feature": "patch",
    },
)
# Of our own making: the authors' code fetches the tower's config.json by its name.
TOWER_FIELDS = Fields(
    read=TOWER_READ | words("layers_used"),
    implemented=TOWER_IMPLEMENTED,
    without_effect=TOWER_WITHOUT_EFFECT,
    defaults={},
)

# The towers that published checkpoints name. Of SigLIP's 27 layers the authors keep 26.
TOWERS: Mapping[str, Json] = {
    "google/siglip-so400m-patch14-384": {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "layer_norm_eps": 1e-6,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 26,
        "patch_size": 14,
    },
    "openai/clip-vit-large-patch14-336": {
        "hidden_act": "quick_gelu",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-5,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}

# mm_patch_merge_type of the LLaVA code, with and without an image_newline parameter, and LongVA's.
NEWLINE_MERGE, SPATIAL_MERGE, PLAIN_MERGE = "spatial_unpad", "spatial", "unires"
# Their mm_newline_position and ours, with image_newline and without.
WITH_NEWLINE = {"grid": "grid", "frame": "frame", "one_token": "one_token", "no_token": "none"}
WITHOUT_NEWLINE = {"one_token": "none", "no_token": "none"}
# The LLaVA code pools frames by 2 whatever the config says. Another number in the config shows
# that somebody expects it to count, so it is refused.
SPATIAL_STRIDE = 2


def model_config(json: Json, *, vocab_rows: int | None = None) -> VideoLMMConfig:
    """Settings from a config.json of either layout, the authors' or transformers' LlavaOnevision.

    Arguments and errors as those of `config_from_json`.
    """
    if is_onevision(json):
        return config_from_onevision(json, vocab_rows=vocab_rows)
    if "text_config" in json:
        one_of(json, "model_type", ("llava_onevision",))
    return config_from_json(json, vocab_rows=vocab_rows)


def config_from_json(json: Json, *, vocab_rows: int | None = None) -> VideoLMMConfig:
    """Settings from the authors' config.json.

    Args:
      json: its content. The tower is named by `mm_vision_tower`, or described by a `vision_config`
        (not of the authors' making), whose `layers_used` says how many layers feed the projector.
        CLIP's follow from mm_vision_select_layer; of SigLIP, the authors use what they store.
      vocab_rows: rows of the stored embedding where they differ from the config's vocab_size, as
        in checkpoints that were saved after a resize.

    Raises:
      InputError: a field is unknown, missing, or has a value that is not implemented; names it.
    """
    if "mm_vision_tower" not in json and "vision_config" not in json:
        raise InputError(
            "has neither mm_vision_tower nor vision_config: a text-only checkpoint; "
            "a LLaVA-Video or LongVA checkpoint is needed"
        )
    filled = FIELDS.fill(json)
    vision = _vision(filled)
    if filled.get("mm_hidden_size", vision.width) != vision.width:
        raise InputError(
            f"mm_hidden_size is {filled['mm_hidden_size']}, but the vision tower's width is "
            f"{vision.width}; they must be equal"
        )
    tied = one_of(filled, "tie_word_embeddings", (False, True))
    language = decoder_config(filled, tied_embeddings=tied, vocab_rows=vocab_rows)
    visual_tokens = _visual_tokens(filled, merge_given="mm_patch_merge_type" in json)
    return VideoLMMConfig(vision=vision, language=language, visual_tokens=visual_tokens)


def image_mode(config: VideoLMMConfig) -> ImageMode:
    """How frames become squares of `config.vision.image_size`: as the tower was trained."""
    return "shortest_edge_crop" if config.vision.class_token else "squash"


def llava_json(config: VideoLMMConfig, *, onevision: Json | None = None) -> dict[str, Any]:
    """The authors' config.json of a model, as `config_from_json` reads it.

    Args:
      config: the settings. Rows of padding, remat and frames_per_chunk are no part of a checkpoint.
      onevision: the config.json of the LlavaOnevision checkpoint that the model comes from; what
        it says of images and special tokens comes along.

    Raises:
      InputError: the layout has no place for such a model.
    """
    vision, tokens = config.vision, config.visual_tokens
    json = decoder_json(config.language) | {
        "architectures": ["LlavaQwenForCausalLM"],
        "mm_hidden_size": vision.width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None,
        "mm_spatial_pool_mode": tokens.pool,
        "mm_spatial_pool_stride": tokens.stride,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "model_type": "llava_qwen",
        "rope_scaling": None,
        "tokenizer_padding_side": "right",
        "use_mm_proj": True,
    }
    json |= _tower_fields(vision) | _newline_fields(tokens, vision.class_token)
    if onevision is not None:
        text = onevision.get("text_config", {})
        json |= {
            key: text[key]
            for key in ("bos_token_id", "eos_token_id", "max_position_embeddings", "pad_token_id")
            if key in text
        }
        renamed = {"image_grid_pinpoints": "image_grid_pinpoints"}
        renamed["vision_aspect_ratio"] = "image_aspect_ratio"
        json |= {new: onevision[old] for old, new in renamed.items() if old in onevision}
    return json


def _vision(json: Json) -> VisionConfig:
    where = "vision_config."
    if "vision_config" in json:
        tower = TOWER_FIELDS.fill(json_object(json, "vision_config"), where)
    else:
        tower = dict(TOWERS[one_of(json, "mm_vision_tower", TOWERS)])
    layers = whole_number(tower, "num_hidden_layers", where)
    given = whole_number(tower, "layers_used", where) if "layers_used" in tower else None
    if given is not None and given > layers:
        raise InputError(f"{where}layers_used is {given} of num_hidden_layers {layers}")
    if required(tower, "model_type", where) == "clip_vision_model":
        used = layers_until(json, "mm_vision_select_layer", layers)
        if given not in (None, used):
            raise InputError(
                f"{where}layers_used is {given}, but mm_vision_select_layer means {used} of "
                f"{layers}; leave out layers_used"
            )
        return tower_config(tower, where, layers=layers, layers_used=used)
    # The authors' SigLIP never looks at mm_vision_select_layer: it cuts off what it does not use
    # before it saves, and hands on the last state.
    used = layers if given is None else given
    return tower_config(tower, where, layers=used, layers_used=used)


def _visual_tokens(json: Json, *, merge_given: bool) -> VisualTokensConfig:
    merges = (NEWLINE_MERGE, SPATIAL_MERGE, PLAIN_MERGE)
    merge = one_of(json, "mm_patch_merge_type", merges, given=merge_given)
    if "mm_spatial_pool_mode" not in json:
        raise InputError(
            "mm_spatial_pool_mode is missing and has no default; add it to config.json: the "
            'published LLaVA-OneVision has "bilinear", LongVA has "average"'
        )
    pool = one_of(json, "mm_spatial_pool_mode", POOLS)
    if merge == PLAIN_MERGE:
        if pool == "bilinear":
            raise InputError(
                f'mm_spatial_pool_mode is "bilinear", which mm_patch_merge_type "{PLAIN_MERGE}" '
                'does not have; use "average" or "max"'
            )
        stride = whole_number(json, "mm_spatial_pool_stride")
        return VisualTokensConfig(pool=pool, stride=stride, newline="none")
    if json.get("mm_spatial_pool_stride") is not None:
        one_of(json, "mm_spatial_pool_stride", (SPATIAL_STRIDE,))
    position = one_of(json, "mm_newline_position", WITH_NEWLINE)
    stored = merge == NEWLINE_MERGE
    if not stored and position not in WITHOUT_NEWLINE:
        raise InputError(
            f'mm_newline_position is "{position}", but mm_patch_merge_type "{merge}" has no '
            f'newline; only "{NEWLINE_MERGE}" has one'
        )
    newline = (WITH_NEWLINE if stored else WITHOUT_NEWLINE)[position]
    unused = stored and newline == "none"
    return VisualTokensConfig(
        pool=pool, stride=SPATIAL_STRIDE, newline=newline, unused_newline=unused
    )


def _tower_fields(vision: VisionConfig) -> dict[str, Any]:
    described = tower_json(vision)
    select_layer = -2  # what the published checkpoints have, and SigLIP ignores
    if vision.class_token:
        select_layer = vision.layers_used - vision.layers - 1
    elif vision.layers_used != vision.layers:
        raise InputError(
            f"the vision tower stores {vision.layers} layers and uses {vision.layers_used}; the "
            "authors' layout has no place for SigLIP layers that are not used"
        )
    for name, published in TOWERS.items():
        if described == published:
            return {"mm_vision_tower": name, "mm_vision_select_layer": select_layer}
    return {
        "mm_vision_tower": described["model_type"],
        "mm_vision_select_layer": select_layer,
        "vision_config": described,
    }


def _newline_fields(tokens: VisualTokensConfig, class_token: bool) -> dict[str, Any]:
    if tokens.stores_newline:
        merge = NEWLINE_MERGE
        position = next(theirs for theirs, ours in WITH_NEWLINE.items() if ours == tokens.newline)
    else:
        # Two layouts describe tokens without newlines; each has what the other has not.
        plain = tokens.pool != "bilinear" and (class_token or tokens.stride != SPATIAL_STRIDE)
        merge, position = (PLAIN_MERGE if plain else SPATIAL_MERGE), "no_token"
    if merge == PLAIN_MERGE:
        return {"mm_patch_merge_type": merge}
    if tokens.stride != SPATIAL_STRIDE:
        raise InputError(
            f"the visual tokens have stride {tokens.stride}; the authors' layout has only "
            f'{SPATIAL_STRIDE}, except without newlines and with "average" or "max" pooling'
        )
    return {"mm_newline_position": position, "mm_patch_merge_type": merge}
