"""From the config.json of a LLaVA-Video or LongVA checkpoint to our settings; the demo's model.

Strict: what a checkpoint asks for and is not implemented here is refused, and so is every field
that is not known. A field is in one of three tables: READ (it becomes a setting), IMPLEMENTED (only
these values are) and WITHOUT_EFFECT (training flags, image-only paths, tokenizer and library
settings).
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from json import dumps
from typing import Any, Literal

from tpo_jax.errors import InputError, did_you_mean
from tpo_jax.models.language import LanguageConfig
from tpo_jax.models.video_lmm import VideoLMMConfig
from tpo_jax.models.vision import GELUS, VisionConfig
from tpo_jax.models.visual_tokens import POOLS, VisualTokensConfig

Json = Mapping[str, Any]
ImageMode = Literal["squash", "shortest_edge_crop"]

READ = frozenset(
    """head_dim hidden_size intermediate_size mm_hidden_size mm_newline_position mm_patch_merge_type
    mm_spatial_pool_mode mm_spatial_pool_stride mm_vision_tower num_attention_heads
    num_hidden_layers num_key_value_heads rms_norm_eps rope_theta tie_word_embeddings vision_config
    vocab_size""".split()
)

IMPLEMENTED: Mapping[str, tuple[Any, ...]] = {
    "add_faster_video": (False,),
    "architectures": (["LlavaQwenForCausalLM"],),
    "attention_dropout": (0.0,),
    "hidden_act": ("silu",),
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_resampler_type": (None,),
    "mm_use_im_patch_token": (False,),
    "mm_use_im_start_end": (False,),
    "mm_vision_select_feature": ("patch",),
    "mm_vision_select_layer": (-2,),
    "model_type": ("llava_qwen", "llava", "qwen2"),
    "rope_scaling": (None,),
    "use_mm_proj": (True,),
    "use_pos_skipping": (False,),
    "use_sliding_window": (False,),
}

WITHOUT_EFFECT = frozenset(
    """_name_or_path add_time_instruction attn_implementation bos_token_id delay_load dtype
    eos_token_id faster_token_stride force_sample frames_upbound freeze_mm_mlp_adapter
    freeze_mm_vision_resampler image_aspect_ratio image_crop_resolution image_grid_pinpoints
    image_split_resolution initializer_range max_position_embeddings max_window_layers
    mm_projector_lr mm_spatial_pool_out_channels mm_tunable_parts mm_vision_tower_lr pad_token_id
    pos_skipping_range sliding_window tokenizer_model_max_length tokenizer_padding_side torch_dtype
    transformers_version tune_mm_mlp_adapter tune_mm_vision_resampler unfreeze_mm_vision_tower
    use_cache vision_tower_pretrained""".split()
)

VISION_READ = frozenset(
    """hidden_act hidden_size image_size intermediate_size layer_norm_eps layers_used model_type
    num_attention_heads num_hidden_layers patch_size""".split()
)
VISION_IMPLEMENTED: Mapping[str, tuple[Any, ...]] = {
    "attention_dropout": (0.0,),
    "dropout": (0.0,),
    "num_channels": (3,),
    "vision_use_head": (False,),
}
VISION_WITHOUT_EFFECT = frozenset(
    """_name_or_path architectures dtype initializer_factor initializer_range projection_dim
    torch_dtype transformers_version""".split()
)

# The merge type of LLaVA-Video has an image_newline, placed as mm_newline_position says.
NEWLINE_MERGE = "spatial_unpad"
NEWLINE_POSITIONS = ("grid", "frame", "one_token")
# LongVA's merge type: a frame is its pooled grid and nothing else.
PLAIN_MERGE = "unires"
# The authors pool LLaVA-Video's frames by 2 whatever the config says.
SPATIAL_STRIDE = 2


@dataclass(frozen=True, kw_only=True)
class TowerFamily:
    """What all towers of one kind share. `unused_layers` are stored but feed nothing."""

    class_token: bool
    pre_norm: bool
    patch_bias: bool
    unused_layers: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


FAMILIES: Mapping[str, TowerFamily] = {
    "siglip_vision_model": TowerFamily(
        class_token=False,
        pre_norm=False,
        patch_bias=True,
        unused_layers=0,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    ),
    "clip_vision_model": TowerFamily(
        class_token=True,
        pre_norm=True,
        patch_bias=False,
        unused_layers=1,
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
    ),
}

# The towers that published checkpoints name. Of SigLIP's 27 layers LLaVA-Video keeps 26.
TOWERS: Mapping[str, Json] = {
    "google/siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model",
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "layer_norm_eps": 1e-6,
        "num_attention_heads": 16,
        "num_hidden_layers": 26,
        "patch_size": 14,
    },
    "openai/clip-vit-large-patch14-336": {
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-5,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}


def config_from_json(json: Json, *, vocab_rows: int | None = None) -> VideoLMMConfig:
    """Settings of a checkpoint.

    Args:
      json: the content of its config.json. The tower is described by `vision_config`, whose
        `layers_used` says how many layers feed the projector (default: all stored layers of
        SigLIP, all but the last of CLIP), or else named by `mm_vision_tower`.
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
    _check_fields(json, READ, IMPLEMENTED, WITHOUT_EFFECT, "")
    vision = _vision(json)
    if json.get("mm_hidden_size", vision.width) != vision.width:
        raise InputError(
            f"mm_hidden_size is {json['mm_hidden_size']}, but the vision tower's width is "
            f"{vision.width}; they must be equal"
        )
    width, heads = _number(json, "hidden_size"), _number(json, "num_attention_heads")
    kv_heads = _number(json, "num_key_value_heads")
    _check_divides("num_attention_heads", heads, "num_key_value_heads", kv_heads)
    if "head_dim" not in json:
        _check_divides("hidden_size", width, "num_attention_heads", heads)
    language = LanguageConfig(
        vocab_rows=_number(json, "vocab_size") if vocab_rows is None else vocab_rows,
        width=width,
        mlp_width=_number(json, "intermediate_size"),
        layers=_number(json, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_width=_number(json, "head_dim") if "head_dim" in json else width // heads,
        rope_theta=_real(json, "rope_theta"),
        norm_eps=_real(json, "rms_norm_eps"),
        qkv_bias=True,
        tied_embeddings=bool(_one_of(json, "tie_word_embeddings", (False, True))),
    )
    return VideoLMMConfig(vision=vision, language=language, visual_tokens=_visual_tokens(json))


def image_mode(config: VideoLMMConfig) -> ImageMode:
    """How frames become squares of `config.vision.image_size`: as the tower was trained."""
    return "shortest_edge_crop" if config.vision.class_token else "squash"


def demo_model_json(vocab_rows: int = 450) -> dict[str, Any]:
    """The config.json of the demo's small model: LLaVA-Video's make-up, trainable on a CPU."""
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "vocab_size": vocab_rows,
        "hidden_act": "silu",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
        "mm_vision_tower": "demo",
        "mm_hidden_size": 96,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": NEWLINE_MERGE,
        "mm_newline_position": "grid",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": SPATIAL_STRIDE,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_hidden_layers": 3,
            "layers_used": 3,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
            "layer_norm_eps": 1e-6,
        },
    }


def _vision(json: Json) -> VisionConfig:
    where = "vision_config."
    if "vision_config" in json:
        tower = json["vision_config"]
        if not isinstance(tower, Mapping):
            raise InputError(f"vision_config is {dumps(tower)}; it must be an object")
    else:
        tower = TOWERS[_one_of(json, "mm_vision_tower", TOWERS)]
    _check_fields(tower, VISION_READ, VISION_IMPLEMENTED, VISION_WITHOUT_EFFECT, where)
    name = _one_of(tower, "model_type", FAMILIES, where)
    family = FAMILIES[name]
    stored = _number(tower, "num_hidden_layers", where)
    used = stored - family.unused_layers
    if "layers_used" in tower:
        used = _number(tower, "layers_used", where)
        if used > stored:
            raise InputError(f"{where}layers_used is {used} of num_hidden_layers {stored}")
    width = _number(tower, "hidden_size", where)
    heads = _number(tower, "num_attention_heads", where)
    _check_divides(f"{where}hidden_size", width, f"{where}num_attention_heads", heads)
    return VisionConfig(
        image_size=_number(tower, "image_size", where),
        patch_size=_number(tower, "patch_size", where),
        width=width,
        mlp_width=_number(tower, "intermediate_size", where),
        heads=heads,
        # The authors cut SigLIP's unused layers off before they save; CLIP's stay in the file.
        layers=stored if family.unused_layers else used,
        layers_used=used,
        norm_eps=_real(tower, "layer_norm_eps", where),
        activation=_one_of(tower, "hidden_act", GELUS, where),
        class_token=family.class_token,
        pre_norm=family.pre_norm,
        patch_bias=family.patch_bias,
        image_mean=family.image_mean,
        image_std=family.image_std,
    )


def _visual_tokens(json: Json) -> VisualTokensConfig:
    pool = _one_of(json, "mm_spatial_pool_mode", POOLS)
    if _one_of(json, "mm_patch_merge_type", (NEWLINE_MERGE, PLAIN_MERGE)) == PLAIN_MERGE:
        stride = _number(json, "mm_spatial_pool_stride")
        return VisualTokensConfig(pool=pool, stride=stride, newline="none")
    if "mm_spatial_pool_stride" in json:
        _one_of(json, "mm_spatial_pool_stride", (SPATIAL_STRIDE,))
    newline = _one_of(json, "mm_newline_position", NEWLINE_POSITIONS)
    return VisualTokensConfig(pool=pool, stride=SPATIAL_STRIDE, newline=newline)


def _check_fields(
    json: Json,
    read: Collection[str],
    implemented: Mapping[str, tuple[Any, ...]],
    without_effect: Collection[str],
    where: str,
) -> None:
    for key in json:
        if key in implemented:
            _one_of(json, key, implemented[key], where)
        elif key not in read and key not in without_effect:
            raise InputError(
                f"{where}{key} is not a known field"
                f"{did_you_mean(key, [*read, *implemented, *without_effect])}"
            )


def _required(json: Json, key: str, where: str) -> Any:
    if key not in json:
        raise InputError(f"{where}{key} is missing")
    return json[key]


def _one_of(json: Json, key: str, values: Iterable[Any], where: str = "") -> Any:
    value = _required(json, key, where)
    known = list(values)
    # In Python True equals 1, in JSON it does not.
    if not any(v == value and isinstance(v, bool) == isinstance(value, bool) for v in known):
        listed = ", ".join(dumps(other) for other in known)
        verb = "is" if len(known) == 1 else "are"
        raise InputError(f"{where}{key} is {dumps(value)}; only {listed} {verb} implemented")
    return value


def _number(json: Json, key: str, where: str = "") -> int:
    value = _required(json, key, where)
    if type(value) is not int or value < 1:
        raise InputError(f"{where}{key} is {dumps(value)}; it must be a whole number above 0")
    return value


def _real(json: Json, key: str, where: str = "") -> float:
    value = _required(json, key, where)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InputError(f"{where}{key} is {dumps(value)}; it must be a number above 0")
    return float(value)


def _check_divides(name: str, number: int, by_name: str, by: int) -> None:
    if number % by:
        raise InputError(f"{name} {number} is not a multiple of {by_name} {by}")
