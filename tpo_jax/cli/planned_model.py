"""Which model a plan is for: a checkpoint that is there, or a published one by its name."""

import difflib
import re
from dataclasses import dataclass
from typing import Any

from tpo_jax.api import find_checkpoint
from tpo_jax.errors import InputError
from tpo_jax.interop.reader import read_config
from tpo_jax.models.checkpoint_config import model_config
from tpo_jax.models.presets import PRESETS, preset_json
from tpo_jax.models.video_lmm import VideoLMMConfig

# How alike the name of a checkpoint and of a published model must be.
RESEMBLANCE = 0.6


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """Which model it is, how that was found, and the longest row it was trained on (or None)."""

    name: str
    said: str
    config: VideoLMMConfig
    trained_length: int | None


def find_model(preset: str | None, checkpoint: str) -> PlannedModel:
    """The preset if one is named, else the checkpoint if it is there, else what it resembles.

    Raises:
      InputError: there is no such preset, or nothing to go by.
    """
    if preset is not None:
        return planned_model(preset, f"model: {preset}, as published", preset_json(preset))
    try:
        folder = find_checkpoint(checkpoint)
    except InputError:
        name = resembling_preset(checkpoint)
        said = f"model: {name}, since config.checkpoint={checkpoint} is not here and is named so"
        return planned_model(name, said, preset_json(name))
    said = f"model: {folder}/config.json"
    return planned_model(checkpoint, said, read_config(folder))


def planned_model(name: str, said: str, content: dict[str, Any]) -> PlannedModel:
    """The model of a config.json."""
    inner = content.get("text_config")
    described = {**content, **(inner if isinstance(inner, dict) else {})}
    keys = ("max_position_embeddings", "tokenizer_model_max_length")
    lengths = [described[key] for key in keys if isinstance(described.get(key), int)]
    return PlannedModel(
        name=name,
        said=said,
        config=model_config(content),
        trained_length=min(lengths, default=None),
    )


def resembling_preset(checkpoint: str) -> str:
    """The published model that a checkpoint's name is most like.

    Raises:
      InputError: it is like none.
    """
    name = re.sub(r"[^a-z0-9]+", "_", checkpoint.rstrip("/").rpartition("/")[2].lower())
    begun = [preset for preset in PRESETS if name.startswith(preset)]
    alike = begun or difflib.get_close_matches(name, PRESETS, n=1, cutoff=RESEMBLANCE)
    if not alike:
        raise InputError(
            f"config.checkpoint={checkpoint} is not here, and its name is like no published model; "
            f"choose one: --model={'|'.join(PRESETS)}"
        )
    return alike[0]
