"""Tower and decoder, of any shape, compute what the classes of transformers compute."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.quick_compile import QUICK
from tests.torch_weights import params_of, randomise
from tpo_jax.attention import PAD_BRANCH, row_layout
from tpo_jax.interop import keys
from tpo_jax.models.language import Decoder, LanguageConfig
from tpo_jax.models.part_configs import FAMILIES
from tpo_jax.models.vision import VisionConfig, VisionTower

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Features and logits are of size 1 to 10 and differ by rounding only, 4e-6 at most where this was
# written. The two kinds of GELU differ by some 1e-4.
TOLERANCE = 2e-5

# The classes by themselves, as against inside a LLaVA model.
ALONE = dataclasses.replace(keys.LLAVA, tower="")

# A shape that was not met before is compiled anew, in a second or so: few examples, the same ones
# every time, and no shrinking.
few, many = (
    settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
    )
    for examples in (3, 12)
)


def assert_near(found: Any, expected: Any) -> None:
    found, expected = np.asarray(found), expected.numpy()
    assert found.shape == expected.shape
    assert np.std(expected) > 0.1  # something is being compared
    assert np.max(np.abs(found - expected)) <= TOLERANCE


# ---------------------------------------------------------------------------------- towers


@st.composite
def towers(draw: st.DrawFn, family: str, activation: str, eps: float) -> VisionConfig:
    """A tower of the family; large eps too, or numbers of size 1 would not show where it stands."""
    heads, head_width = draw(st.integers(1, 4)), draw(st.sampled_from([4, 6, 8]))
    patch, side = draw(st.integers(2, 5)), draw(st.integers(2, 6))
    kind, layers = FAMILIES[family], draw(st.integers(2, 3))
    # The last layer of CLIP is never used.
    unused = 1 if family == "clip_vision_model" else draw(st.integers(0, 1))
    return VisionConfig(
        image_size=patch * side + draw(st.integers(0, patch - 1)),
        patch_size=patch,
        width=heads * head_width,
        mlp_width=draw(st.sampled_from([20, 33])),
        heads=heads,
        layers=layers,
        layers_used=layers - unused,
        norm_eps=draw(st.sampled_from([eps, 0.05])),
        activation=activation,
        class_token=kind.class_token,
        pre_norm=kind.pre_norm,
        patch_bias=kind.patch_bias,
        image_mean=kind.image_mean,
        image_std=kind.image_std,
    )


def check_tower(config: VisionConfig, of_class: Any, settings_of: Any, **more: Any) -> None:
    """Our features, and the hidden state after as many layers of the torch model."""
    theirs = of_class(
        settings_of(
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_attention_heads=config.heads,
            num_hidden_layers=config.layers,
            layer_norm_eps=config.norm_eps,
            hidden_act=config.activation,
            attn_implementation="eager",
            **more,
        )
    )
    randomise(theirs, seed=config.image_size)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: VisionTower(config, rngs=nnx.Rngs(0))))
    params = params_of(theirs, {"vision": nnx.to_pure_dict(shapes)}, ALONE)["vision"]
    size = config.image_size
    frames = np.random.default_rng(size).integers(0, 256, (2, size, size, 3), np.uint8)
    pixels = torch.tensor(frames).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(config.image_mean), torch.tensor(config.image_std)
    pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        states = theirs(pixels, output_hidden_states=True).hidden_states
    assert len(states) == config.layers + 1
    expected = states[config.layers_used][:, int(config.class_token) :]
    encode = jax.jit(lambda p, f: nnx.merge(graph, p)(f), compiler_options=QUICK)
    assert_near(encode(params, frames), expected)


SIGLIP = towers("siglip_vision_model", "gelu_pytorch_tanh", 1e-6)
CLIP = towers("clip_vision_model", "quick_gelu", 1e-5)


def check_siglip(config: VisionConfig) -> None:
    check_tower(
        config,
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig,
        vision_use_head=False,
    )


def check_clip(config: VisionConfig) -> None:
    assert config.layers_used == config.layers - 1
    check_tower(config, transformers.CLIPVisionModel, transformers.CLIPVisionConfig)


@few
@given(SIGLIP)
def test_siglip(config: VisionConfig) -> None:
    check_siglip(config)


@few
@given(CLIP)
def test_clip(config: VisionConfig) -> None:
    check_clip(config)


@pytest.mark.slow
@many
@given(SIGLIP, CLIP)
def test_many_towers(siglip: VisionConfig, clip: VisionConfig) -> None:
    check_siglip(siglip)
    check_clip(clip)


# -------------------------------------------------------------------------------- decoders


@st.composite
def decoders(draw: st.DrawFn, *, qkv_bias: bool, eps: float) -> LanguageConfig:
    kv_heads = draw(st.integers(1, 2))
    return LanguageConfig(
        vocab_rows=draw(st.integers(20, 60)),
        # LlamaConfig insists on a multiple of the heads, though the head width is given.
        width=draw(st.sampled_from([24, 48])),
        mlp_width=draw(st.sampled_from([32, 56])),
        layers=draw(st.integers(1, 3)),
        heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_width=draw(st.sampled_from([6, 8, 16])),
        rope_theta=draw(st.sampled_from([1e4, 1e5, 1e6, 1e9])),
        norm_eps=draw(st.sampled_from([eps, 0.05])),
        qkv_bias=qkv_bias,
        tied_embeddings=draw(st.booleans()),
    )


def check_decoder(
    config: LanguageConfig, pad: int, of_class: Any, settings_of: Any, **more: Any
) -> None:
    """Logits at every place of two rows, one of them with padding on its left."""
    theirs = of_class(
        settings_of(
            vocab_size=config.vocab_rows,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_width,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            rms_norm_eps=config.norm_eps,
            tie_word_embeddings=config.tied_embeddings,
            hidden_act="silu",
            attn_implementation="eager",
            **more,
        )
    )
    randomise(theirs, seed=config.vocab_rows)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    params = params_of(theirs, {"language": nnx.to_pure_dict(shapes)}, ALONE)["language"]
    length, pads = 16, np.array([[0], [pad]])
    tokens = np.random.default_rng(pad).integers(0, config.vocab_rows, (2, length))
    seen = np.arange(length) >= pads
    positions = np.maximum(np.arange(length) - pads, 0)

    def forward(params: Any, tokens: Any, positions: Any, branch: Any) -> Any:
        decoder: Decoder = nnx.merge(graph, params)
        hidden, _ = decoder(decoder.embed(tokens), positions, row_layout(branch))
        return decoder.logits(hidden)

    found = jax.jit(forward, compiler_options=QUICK)(
        params, tokens, positions, jnp.where(seen, 0, PAD_BRANCH)
    )
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(tokens),
            attention_mask=torch.tensor(seen).long(),
            position_ids=torch.tensor(positions),
        ).logits
    assert expected.shape == (2, length, config.vocab_rows)
    assert_near(np.asarray(found)[seen], expected[torch.tensor(seen)])


QWEN2 = decoders(qkv_bias=True, eps=1e-6)
LLAMA = decoders(qkv_bias=False, eps=1e-5)


def check_qwen2(config: LanguageConfig, pad: int) -> None:
    check_decoder(config, pad, transformers.Qwen2ForCausalLM, transformers.Qwen2Config)


def check_llama(config: LanguageConfig, pad: int) -> None:
    check_decoder(config, pad, transformers.LlamaForCausalLM, transformers.LlamaConfig)


@few
@given(QWEN2, st.integers(0, 5))
def test_qwen2(config: LanguageConfig, pad: int) -> None:
    check_qwen2(config, pad)


@few
@given(LLAMA, st.integers(0, 5))
def test_llama(config: LanguageConfig, pad: int) -> None:
    check_llama(config, pad)


@pytest.mark.slow
@many
@given(QWEN2, LLAMA, st.integers(0, 5))
def test_many_decoders(qwen2: LanguageConfig, llama: LanguageConfig, pad: int) -> None:
    check_qwen2(qwen2, pad)
    check_llama(llama, pad)
