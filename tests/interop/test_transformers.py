"""An exported model, loaded by Hugging Face's own classes, sees and says the same."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.quick_compile import QUICK
from tests.random_params import random_params
from tests.small_model import small_model_json
from tpo_jax.api import load
from tpo_jax.attention import row_layout
from tpo_jax.interop.writer import write_checkpoint
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.video_lmm import Params, VideoLMM, abstract_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"
FRAMES, BEFORE, AFTER = 3, 4, 5
TOLERANCE = 2e-4

Tensors = dict[str, Any]


def model_json() -> dict[str, Any]:
    """The demo's make-up, smaller, and with an odd grid of 5 x 5 patches and pixels left over."""
    content = small_model_json(vocab_rows=60)
    content |= {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    content |= {"mm_hidden_size": 32, "rope_theta": 1e6}
    content["vision_config"] |= {"hidden_size": 32, "intermediate_size": 48, "image_size": 75}
    return content


class Ours:
    """A model's numbers by our classes, and its export."""

    def __init__(self, folder: Path, content: dict[str, Any], params: Params):
        config = config_from_json(content)
        write_checkpoint(folder, config=config, params=params, json=content)
        size = config.vision.image_size
        rng = np.random.default_rng(1)
        self.json = json.loads((folder / "config.json").read_text())
        self.tensors = self._load(folder)
        self.frames = rng.integers(0, 256, (FRAMES, size, size, 3), np.uint8)
        length = BEFORE + config.tokens_per_video(FRAMES) + AFTER
        self.tokens = rng.integers(0, 60, (1, length)).astype(np.int32)
        self.visual_index = np.full((1, length), -1, np.int32)
        self.visual_index[0, BEFORE:-AFTER] = np.arange(config.tokens_per_video(FRAMES))
        graph, _ = abstract_model(config)

        @partial(jax.jit, compiler_options=QUICK)
        def forward(params: Any, frames: Any, tokens: Any, visual_index: Any) -> Any:
            model: VideoLMM = nnx.merge(graph, params)
            visual = model.encode_videos(frames[None])
            positions = jnp.arange(length)[None]
            layout = row_layout(jnp.zeros((1, length), jnp.int32))
            hidden, _ = model(tokens, visual, visual_index, positions, layout)
            return model.vision(frames), visual[0], model.logits(hidden)[0]

        numbers = forward(params, self.frames, self.tokens, self.visual_index)
        self.features, self.visual_tokens, self.logits = jax.device_get(numbers)

    @staticmethod
    def _load(folder: Path) -> Tensors:
        from safetensors.torch import load_file

        return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module", params=["random", "demo_base"])
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ours:
    """Random weights of an odd shape, and the weights that the demo trains from."""
    content = model_json()
    params = random_params(config_from_json(content))
    if request.param == "demo_base":
        shipped = load("demo_base")
        content, params = shipped.json, shipped.params
    return Ours(tmp_path_factory.mktemp("export"), content, params)


def load_strictly(model: Any, tensors: Tensors, *, tied: bool = False) -> Any:
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if tied else [])  # a tied head is the embedding
    return model.eval()


def vision_features(ours: Ours) -> Any:
    fields = dict(ours.json["vision_config"])
    for ours_only in ("layers_used", "model_type"):
        del fields[ours_only]
    config = transformers.SiglipVisionConfig(
        **fields, vision_use_head=False, attn_implementation="eager"
    )
    tensors = {
        name.removeprefix(TOWER): tensor
        for name, tensor in ours.tensors.items()
        if name.startswith(TOWER)
    }
    model = load_strictly(transformers.SiglipVisionModel(config), tensors)
    pixels = (torch.tensor(ours.frames).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        return model(pixels, output_hidden_states=True).hidden_states[-1]


def visual_tokens(features: Any, tensors: Tensors) -> Any:
    """Projector, bilinear pooling and grid newlines, written out."""
    functional = torch.nn.functional
    first, second = (
        (tensors[f"{PROJECTOR}{layer}.weight"], tensors[f"{PROJECTOR}{layer}.bias"])
        for layer in (0, 2)
    )
    projected = functional.linear(functional.gelu(functional.linear(features, *first)), *second)
    side = math.isqrt(projected.shape[1])
    half = math.ceil(side / 2)
    grid = projected.reshape(FRAMES, side, side, -1).permute(0, 3, 1, 2)
    pooled = functional.interpolate(grid, size=(half, half), mode="bilinear")
    rows = pooled.permute(0, 2, 3, 1)
    newline = tensors[NEWLINE].expand(FRAMES, half, 1, -1)
    return torch.cat([rows, newline], dim=2).flatten(0, 2)


def text_logits(ours: Ours, visual: Any) -> Any:
    config = transformers.Qwen2Config(
        **{
            key: ours.json[key]
            for key in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "rms_norm_eps",
                "tie_word_embeddings",
            )
        },
        rope_parameters={"rope_type": "default", "rope_theta": ours.json["rope_theta"]},
        attn_implementation="eager",
    )
    tensors = {
        name: tensor
        for name, tensor in ours.tensors.items()
        if not name.startswith((TOWER, PROJECTOR, NEWLINE))
    }
    tied = ours.json["tie_word_embeddings"]
    model = load_strictly(transformers.Qwen2ForCausalLM(config), tensors, tied=tied)
    with torch.no_grad():
        embedded = model.get_input_embeddings()(torch.tensor(ours.tokens).long())
        embedded[0, BEFORE:-AFTER] = visual
        return model(inputs_embeds=embedded).logits[0]


def test_an_export_means_the_same_to_transformers(ours: Ours) -> None:
    features = vision_features(ours)
    assert_near(ours.features, features)
    visual = visual_tokens(features, ours.tensors)
    assert_near(ours.visual_tokens, visual)
    assert_near(ours.logits, text_logits(ours, visual))


def assert_near(found: np.ndarray, expected: Any) -> None:
    assert found.shape == tuple(expected.shape)
    assert np.std(found) > 0.1  # something is being compared
    assert np.max(np.abs(found - expected.numpy())) <= TOLERANCE
