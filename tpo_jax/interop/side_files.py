"""The small files beside the weights: tokenizer, chat template, generation and picture settings."""

import json as json_module
from collections.abc import Mapping
from typing import Any

from etils import epath
from tokenizers import AddedToken, Tokenizer

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import VideoLMMConfig

SIDE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE_FILES = ("chat_template.json", "chat_template.jinja")
IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"
END, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
BICUBIC = 3  # PIL's number

# The `qwen_1_5` template. A turn is a text, or a list of parts as processors take them; a picture
# or video comes before the text and is followed by a newline.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}"
    "{% elif part['type'] == 'video' %}{{ '<video>\\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def find_side_files(folder: epath.PathLike) -> list[epath.Path]:
    """Those of `SIDE_FILES` that a checkpoint folder has."""
    folder = epath.Path(folder)
    return [folder / name for name in SIDE_FILES if (folder / name).exists()]


def complete_side_files(folder: epath.PathLike, tokenizer: Tokenizer) -> None:
    """Adds what an evaluation needs and the source lacked; what is there stays as it is.

    tokenizer.json, tokenizer_config.json with a chat template, generation_config.json.
    """
    folder = epath.Path(folder)
    if not (folder / TOKENIZER_FILE).exists():
        (folder / TOKENIZER_FILE).write_text(tokenizer.to_str(pretty=True))
    path = folder / TOKENIZER_CONFIG
    if path.exists():
        try:
            settings = json_module.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError, OSError) as error:
            raise InputError(f"{path}: not JSON ({error}); fetch it again") from error
        if not isinstance(settings, dict):
            raise InputError(f"{path}: holds no JSON object; fetch it again")
    else:
        settings = {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": END,
            "pad_token": END_OF_TEXT,
            "bos_token": None,
            "padding_side": "right",
        }
    templated = any((folder / name).exists() for name in TEMPLATE_FILES)
    if not path.exists() or not (templated or settings.get("chat_template")):
        _write(path, {"chat_template": CHAT_TEMPLATE} | settings)
    if not (folder / "generation_config.json").exists():
        end, end_of_text = tokenizer.token_to_id(END), tokenizer.token_to_id(END_OF_TEXT)
        generation = {"eos_token_id": [end, end_of_text], "pad_token_id": end_of_text}
        _write(folder / "generation_config.json", {"do_sample": False} | generation)


def add_picture_tokens(tokenizer: Tokenizer, rows: int) -> tuple[int, int]:
    """Gives the tokenizer <image> and <video>; returns their ids.

    Raises:
      InputError: the vocabulary's `rows` have no place for them.
    """
    special = [AddedToken(token, special=True) for token in (IMAGE_TOKEN, VIDEO_TOKEN)]
    tokenizer.add_special_tokens(special)
    image, video = tokenizer.token_to_id(IMAGE_TOKEN), tokenizer.token_to_id(VIDEO_TOKEN)
    assert image is not None and video is not None
    if max(image, video) >= rows:
        raise InputError(
            f"the vocabulary has {rows} rows, all in use: no row is free for the tokens "
            f"{IMAGE_TOKEN} and {VIDEO_TOKEN} of this layout; use --layout=llava"
        )
    return image, video


def write_onevision_files(
    folder: epath.PathLike, tokenizer: Tokenizer, config: VideoLMMConfig, json: Mapping[str, Any]
) -> None:
    """What transformers' LlavaOnevision processor reads; the tokenizer has the picture tokens."""
    folder = epath.Path(folder)
    (folder / TOKENIZER_FILE).write_text(tokenizer.to_str(pretty=True))
    side = config.vision.image_size
    pictures = {
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.vision.image_mean),
        "image_std": list(config.vision.image_std),
        "do_convert_rgb": True,
        "processor_class": "LlavaOnevisionProcessor",
    }
    images = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "image_grid_pinpoints": json["image_grid_pinpoints"],
        "do_pad": True,
    }
    videos = {"video_processor_type": "LlavaOnevisionVideoProcessor"}
    _write(folder / "preprocessor_config.json", pictures | images)
    _write(folder / "video_preprocessor_config.json", pictures | videos)
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "image_token": IMAGE_TOKEN,
        "video_token": VIDEO_TOKEN,
        "num_image_tokens": config.vision.side**2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": json.get("vision_aspect_ratio", "anyres_max_9"),
    }
    _write(folder / "processor_config.json", processor)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def _write(path: epath.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json_module.dumps(content, indent=2, sort_keys=True) + "\n")
