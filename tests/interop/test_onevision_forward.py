"""A LlavaOnevision model that transformers saved, read here: the same logits, with a video too."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from tests.quick_compile import QUICK
from tests.torch_weights import randomise
from tpo_jax.attention import row_layout
from tpo_jax.interop.reader import Checkpoint, read_checkpoint
from tpo_jax.models.video_lmm import Params, VideoLMM, abstract_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZE, PATCH = 33, 6  # an odd grid of 5 x 5 patches, pooled to 3 x 3, and pixels left over
VOCABULARY, IMAGE_TOKEN, VIDEO_TOKEN = 64, 62, 63
FRAMES, BEFORE, AFTER = 3, 5, 6
# Logits are of size 1 to 5 and differ by rounding only, 2e-6 where this was written.
TOLERANCE = 2e-5


def onevision(tied: bool) -> Any:
    """Random weights; every number that has a default of its own is another one here."""
    vision = transformers.SiglipVisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=SIZE,
        patch_size=PATCH,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-3,
        vision_use_head=False,
    )
    text = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 3e5},
        rms_norm_eps=1e-3,
        tie_word_embeddings=tied,
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_TOKEN,
        video_token_index=VIDEO_TOKEN,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    return randomise(transformers.LlavaOnevisionForConditionalGeneration(config), seed=0)


@dataclass(kw_only=True)
class Both:
    """The torch model, and what we read from what it saved."""

    theirs: Any
    ours: Checkpoint

    @cached_property
    def forward(self) -> Any:
        """Our logits, compiled once a shape."""
        graph, _ = abstract_model(self.ours.config)

        @partial(jax.jit, compiler_options=QUICK)
        def forward(params: Params, frames: Any, tokens: Any, index: Any, positions: Any) -> Any:
            model: VideoLMM = nnx.merge(graph, params)
            visual = model.encode_videos(frames)
            layout = row_layout(positions * 0)
            hidden, _ = model(tokens, visual, index, positions, layout)
            return model.logits(hidden)

        return forward


@pytest.fixture(scope="module", params=[False, True], ids=["own_head", "tied_head"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    theirs = onevision(tied=request.param)
    folder = tmp_path_factory.mktemp("onevision")
    theirs.save_pretrained(folder)
    return Both(theirs=theirs, ours=read_checkpoint(folder))


def our_logits(both: Both, frames: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Logits [B, T, V]; visual tokens stand where the tokens say <video>."""
    shown = tokens == VIDEO_TOKEN
    visual_index = np.where(shown, np.cumsum(shown, axis=1) - 1, -1).astype(np.int32)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    return np.asarray(both.forward(both.ours.params, frames, tokens, visual_index, positions))


def video_rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two videos as uint8 frames, and a row of text around each."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (2, FRAMES, SIZE, SIZE, 3), np.uint8)
    side = -(-(SIZE // PATCH) // 2)
    tokens = rng.integers(0, IMAGE_TOKEN, (2, BEFORE + FRAMES * side**2 + 1 + AFTER))
    tokens[:, BEFORE:-AFTER] = VIDEO_TOKEN
    return frames, tokens


def assert_near(found: np.ndarray, expected: Any) -> None:
    assert found.shape == tuple(expected.shape)
    assert np.std(found) > 0.3  # something is being compared
    assert np.max(np.abs(found - expected.numpy())) <= TOLERANCE


def test_text_alone(both: Both) -> None:
    frames, _ = video_rows(1)
    tokens = np.random.default_rng(2).integers(0, IMAGE_TOKEN, (2, 17))
    with torch.no_grad():
        expected = both.theirs(input_ids=torch.tensor(tokens)).logits
    assert_near(our_logits(both, frames, tokens), expected)


def test_video(both: Both) -> None:
    frames, tokens = video_rows(3)
    pixels = (torch.tensor(frames).permute(0, 1, 4, 2, 3).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = both.theirs(input_ids=torch.tensor(tokens), pixel_values_videos=pixels).logits
    found = our_logits(both, frames, tokens)
    assert_near(found, expected)
    # What is said after the video depends on it, and on more than its first frame.
    frames[:, -1] = 255 - frames[:, -1]
    other = our_logits(both, frames, tokens)
    assert np.max(np.abs(other - found)[:, -AFTER:]) > 100 * TOLERANCE
    np.testing.assert_array_equal(other[:, :BEFORE], found[:, :BEFORE])
