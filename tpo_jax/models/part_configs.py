"""The two parts that every layout of config.json describes: the decoder and the vision tower."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from json import dumps
from typing import Any

from tpo_jax.errors import InputError
from tpo_jax.models.config_fields import (
    Fields,
    Json,
    check_divides,
    json_object,
    one_of,
    real_number,
    whole_number,
    words,
)
from tpo_jax.models.language import LanguageConfig
from tpo_jax.models.vision import GELUS, VisionConfig

# Qwen2Config of transformers, the same from 4.40 (what the authors pin) to 5.23. Of these, 4.x
# leaves out of a nested config.json what has its default.
QWEN2_DEFAULTS: Json = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
DEFAULT_ROPE_THETA = 1e4
QWEN2_READ = words(
    """head_dim hidden_size intermediate_size layer_types num_attention_heads num_hidden_layers
    num_key_value_heads rms_norm_eps rope_parameters rope_theta tie_word_embeddings vocab_size"""
)
QWEN2_IMPLEMENTED: Mapping[str, tuple[Any, ...]] = {
    "attention_dropout": (0.0,),
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "use_sliding_window": (False,),
}
# What any config.json of transformers may hold.
LIBRARY_FIELDS = words(
    """_attn_implementation_autoset _name_or_path attn_implementation dtype torch_dtype
    transformers_version"""
)
QWEN2_WITHOUT_EFFECT = LIBRARY_FIELDS | words(
    """bos_token_id eos_token_id initializer_range max_position_embeddings max_window_layers
    pad_token_id sliding_window use_cache"""
)
# 5.x writes rope_parameters where 4.x wrote rope_theta.
ROPE_FIELDS = Fields(
    read=words("rope_theta"),
    implemented={"rope_type": ("default",), "type": ("default",)},
    without_effect=frozenset(),
    defaults={},
)
TOWER_READ = words(
    """hidden_act hidden_size image_size intermediate_size layer_norm_eps model_type
    num_attention_heads num_hidden_layers patch_size"""
)
TOWER_IMPLEMENTED: Mapping[str, tuple[Any, ...]] = {
    "attention_dropout": (0.0,),
    "dropout": (0.0,),
    "num_channels": (3,),
    "vision_use_head": (False,),
}
TOWER_WITHOUT_EFFECT = LIBRARY_FIELDS | words(
    "architectures initializer_factor initializer_range projection_dim"
)


@dataclass(frozen=True, kw_only=True)
class TowerFamily:
    """What all towers of one kind share; fields are named as in VisionConfig."""

    class_token: bool
    pre_norm: bool
    patch_bias: bool
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


FAMILIES: Mapping[str, TowerFamily] = {
    "siglip_vision_model": TowerFamily(
        class_token=False,
        pre_norm=False,
        patch_bias=True,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    ),
    "clip_vision_model": TowerFamily(
        class_token=True,
        pre_norm=True,
        patch_bias=False,
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
    ),
}


def decoder_config(
    json: Json, where: str = "", *, tied_embeddings: bool, vocab_rows: int | None
) -> LanguageConfig:
    """The decoder of a Qwen2 config, filled and checked by the caller's `Fields`."""
    width = whole_number(json, "hidden_size", where)
    heads = whole_number(json, "num_attention_heads", where)
    kv_heads = heads
    if json["num_key_value_heads"] is not None:
        kv_heads = whole_number(json, "num_key_value_heads", where)
    check_divides(f"{where}num_attention_heads", heads, f"{where}num_key_value_heads", kv_heads)
    if json.get("head_dim") is None:
        check_divides(f"{where}hidden_size", width, f"{where}num_attention_heads", heads)
        head_width = width // heads
    else:
        head_width = whole_number(json, "head_dim", where)
    kinds = json.get("layer_types") or []
    if any(kind != "full_attention" for kind in kinds):
        raise InputError(
            f'{where}layer_types is {dumps(kinds)}; only "full_attention" is implemented'
        )
    return LanguageConfig(
        vocab_rows=whole_number(json, "vocab_size", where) if vocab_rows is None else vocab_rows,
        width=width,
        mlp_width=whole_number(json, "intermediate_size", where),
        layers=whole_number(json, "num_hidden_layers", where),
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        rope_theta=_rope_theta(json, where),
        norm_eps=real_number(json, "rms_norm_eps", where),
        qkv_bias=True,
        tied_embeddings=tied_embeddings,
    )


def _rope_theta(json: Json, where: str) -> float:
    plain = real_number({"rope_theta": DEFAULT_ROPE_THETA, **json}, "rope_theta", where)
    if json.get("rope_parameters") is None:
        return plain
    inside = f"{where}rope_parameters."
    nested = ROPE_FIELDS.fill(json_object(json, "rope_parameters", where), inside)
    theta = real_number({"rope_theta": plain, **nested}, "rope_theta", inside)
    if "rope_theta" in json and plain != theta:
        raise InputError(
            f"{where}rope_theta is {plain:g}, but {inside}rope_theta is {theta:g}; remove one"
        )
    return theta


def decoder_json(config: LanguageConfig) -> dict[str, Any]:
    """The Qwen2 fields of a decoder, for any version of transformers.

    Raises:
      InputError: it is no Qwen2 decoder.
    """
    if not config.qkv_bias:
        raise InputError("the decoder has no q/k/v biases: it is not Qwen2, which has them")
    described = {
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        # Every version reads rope_theta; only 5.x reads rope_parameters.
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied_embeddings,
        "use_sliding_window": False,
        "vocab_size": config.vocab_rows,
    }
    if config.head_width * config.heads != config.width:
        described["head_dim"] = config.head_width
    return described


def tower_config(json: Json, where: str, *, layers: int, layers_used: int) -> VisionConfig:
    """The tower of a SigLIP or CLIP config that stores `layers` and hands on the state after
    `layers_used`."""
    family = FAMILIES[one_of(json, "model_type", FAMILIES, where)]
    width = whole_number(json, "hidden_size", where)
    heads = whole_number(json, "num_attention_heads", where)
    check_divides(f"{where}hidden_size", width, f"{where}num_attention_heads", heads)
    return VisionConfig(
        image_size=whole_number(json, "image_size", where),
        patch_size=whole_number(json, "patch_size", where),
        width=width,
        mlp_width=whole_number(json, "intermediate_size", where),
        heads=heads,
        layers=layers,
        layers_used=layers_used,
        norm_eps=real_number(json, "layer_norm_eps", where),
        activation=one_of(json, "hidden_act", GELUS, where),
        class_token=family.class_token,
        pre_norm=family.pre_norm,
        patch_bias=family.patch_bias,
        image_mean=family.image_mean,
        image_std=family.image_std,
    )


def tower_json(config: VisionConfig) -> dict[str, Any]:
    """The SigLIP or CLIP fields of a tower; num_hidden_layers counts what is stored.

    Raises:
      InputError: it is neither.
    """
    return {
        "hidden_act": config.activation,
        "hidden_size": config.width,
        "image_size": config.image_size,
        "intermediate_size": config.mlp_width,
        "layer_norm_eps": config.norm_eps,
        "model_type": _family_name(config),
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "patch_size": config.patch_size,
    }


def _family_name(config: VisionConfig) -> str:
    for name, family in FAMILIES.items():
        shared = (field.name for field in fields(TowerFamily))
        if all(getattr(config, key) == getattr(family, key) for key in shared):
            return name
    raise InputError("the vision tower is neither SigLIP nor CLIP; no config.json describes it")
