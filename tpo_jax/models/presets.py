"""Published models by name: the content of their config.json. Also the demo's small model."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tpo_jax.errors import InputError, did_you_mean

# Every pair of 384, 768, ..., 2304: how SigLIP models cut up images.
PINPOINTS = [[a, b] for a in range(384, 2305, 384) for b in range(384, 2305, 384)]

# Qwen2-Instruct as published. Only the 0.5B ties its embeddings. `max_window_layers`, which has no
# effect, is from memory.
DECODERS: Mapping[str, Mapping[str, Any]] = {
    "0_5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_window_layers": 24,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_window_layers": 28,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
    },
    "72b": {
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "max_window_layers": 80,
        "num_attention_heads": 64,
        "num_hidden_layers": 80,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
    },
}

# What all of them share: LLaVA-OneVision-7B's file as published.
SHARED: Mapping[str, Any] = {
    "architectures": ["LlavaQwenForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "image_crop_resolution": None,
    "image_split_resolution": None,
    "initializer_range": 0.02,
    "max_position_embeddings": 32768,
    "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower_lr": 2e-6,
    "pos_skipping_range": 4096,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1e6,
    "sliding_window": 131072,
    "tokenizer_model_max_length": 32768,
    "tokenizer_padding_side": "right",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0",
    "use_cache": True,
    "use_mm_proj": True,
    "use_pos_skipping": False,
    "use_sliding_window": False,
    "vision_tower_pretrained": None,
}
SIGLIP: Mapping[str, Any] = {
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": PINPOINTS,
    "mm_hidden_size": 1152,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_spatial_pool_mode": "bilinear",
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "model_type": "llava",
}

MAKE_UPS: Mapping[str, Mapping[str, Any]] = {
    # The 7B's file is seen whole. Of the 0.5B and the 72B, what is not their decoder's is taken to
    # be the same, from memory.
    "llava_onevision": {**SIGLIP, "image_token_index": 151646, "mm_newline_position": "one_token"},
    # The 7B's file is seen in parts. mm_spatial_pool_mode and _stride are those of its training
    # script; evaluations of it override the mode with "average". A 0.5B is not known to be
    # published; the 72B is from memory.
    "llava_video": {
        **SIGLIP,
        "add_faster_video": False,
        "add_time_instruction": True,
        "faster_token_stride": 10,
        "force_sample": True,
        "mm_newline_position": "grid",
        "mm_spatial_pool_stride": 2,
    },
    # Seen in parts: what its page and its training scripts say. The two lengths are those of its
    # DPO sibling. Its list of image_grid_pinpoints, which videos do not use, is left out.
    "longva": {
        "image_aspect_ratio": "anyres",
        "max_position_embeddings": 224000,
        "mm_hidden_size": 1024,
        "mm_patch_merge_type": "unires",
        "mm_spatial_pool_mode": "average",
        "mm_spatial_pool_stride": 2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "model_type": "llava_qwen",
        "rope_theta": 1e9,
        "tokenizer_model_max_length": 224000,
    },
}

PRESETS = (
    "llava_video_0_5b",
    "llava_video_7b",
    "llava_video_72b",
    "llava_onevision_0_5b",
    "llava_onevision_7b",
    "llava_onevision_72b",
    "longva_7b",
)


def preset_json(name: str) -> dict[str, Any]:
    """The config.json of a published model, for `checkpoint_config.config_from_json`.

    Args:
      name: one of PRESETS.

    Raises:
      InputError: there is no preset of that name.
    """
    if name not in PRESETS:
        raise InputError(f"{name} is not a known model{did_you_mean(name, PRESETS)}")
    family = next(family for family in MAKE_UPS if name.startswith(f"{family}_"))
    decoder = DECODERS[name.removeprefix(f"{family}_")]
    return deepcopy({**SHARED, **decoder, **MAKE_UPS[family]})


def demo_model_json(vocab_rows: int = 450) -> dict[str, Any]:
    """The config.json of the demo's small model: LLaVA-Video's make-up, trainable on a CPU.

    Its embeddings are tied, as in LLaVA-Video 0.5B: words that it says of frames are then at once
    words that it can look for in them.
    """
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
        "tie_word_embeddings": True,
        "max_position_embeddings": 32768,
        "mm_vision_tower": "demo",
        "mm_hidden_size": 96,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "grid",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_hidden_layers": 3,
            "layers_used": 3,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 28,
            "layer_norm_eps": 1e-6,
        },
    }
