"""The parts against plain ones written out, or against PyTorch."""

import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.batches import RowShape, make_row, prompt_row, stack
from data_pipelines.prompts import Prompt
from tests.quick_compile import QUICK
from tests.random_params import random_params
from tests.small_model import small_model_json
from tpo_jax.attention import PAD_BRANCH, Layout, attend, row_layout
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.language import empty_cache
from tpo_jax.models.video_lmm import Params, VideoLMM, VideoLMMConfig, abstract_model
from tpo_jax.models.vision import VisionConfig
from tpo_jax.models.visual_tokens import (
    VisualTokensConfig,
    frame_tokens,
    pool_patches,
    video_tokens,
)

VOCAB = 40
FRAMES = 2
jit = partial(jax.jit, compiler_options=QUICK)


# ------------------------------------------------------------------------------ attention


def attend_naively(q: np.ndarray, k: np.ndarray, v: np.ndarray, sees: np.ndarray) -> np.ndarray:
    """One query and one head at a time, over the keys that it sees only."""
    out = np.zeros(q.shape)
    for b, t, h in np.ndindex(*q.shape[:3]):
        head, seen = h // (q.shape[2] // k.shape[2]), sees[b, t]
        scores = k[b, seen, head] @ q[b, t, h] / np.sqrt(q.shape[3])
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights / weights.sum() @ v[b, seen, head]
    return out


def test_attend_is_attention() -> None:
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 5, 6, 4))
    k, v = rng.normal(size=(2, 2, 7, 3, 4))
    order_k = np.array([[0, 1, 2, 3, 4, 5, 6]] * 2)
    branch_k = np.array([[0, 0, 1, 1, 2, 2, -1], [-1, 0, 0, 0, 1, 2, 2]])
    order_q, branch_q = order_k[:, 1:6], branch_k[:, 1:6]
    sees = np.array(
        [
            [
                [
                    order_k[b, s] <= order_q[b, t]
                    and branch_k[b, s] in (0, branch_q[b, t])
                    and branch_k[b, s] != PAD_BRANCH
                    for s in range(7)
                ]
                for t in range(5)
            ]
            for b in range(2)
        ]
    )
    layout = Layout(
        order_q=jnp.asarray(order_q),
        branch_q=jnp.asarray(branch_q),
        order_k=jnp.asarray(order_k),
        branch_k=jnp.asarray(branch_k),
    )
    q32, k32, v32 = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
    found = attend(q32, k32, v32, layout)
    np.testing.assert_allclose(found, attend_naively(q, k, v, sees), atol=1e-5)
    everything = attend_naively(q, k, v, np.ones_like(sees))
    np.testing.assert_allclose(attend(q32, k32, v32), everything, atol=1e-5)


def test_a_query_that_sees_nothing_is_finite_and_has_finite_gradients() -> None:
    ones = jnp.ones((1, 3, 2, 4))
    layout = row_layout(jnp.full((1, 3), PAD_BRANCH))
    grads = jax.grad(lambda q: attend(q, ones, ones, layout).sum())(ones)
    assert jnp.all(jnp.isfinite(attend(ones, ones, ones, layout)))
    assert jnp.all(jnp.isfinite(grads))


# -------------------------------------------------------------------------- visual tokens


def torch_pool(patches: np.ndarray, side: int, config: VisualTokensConfig) -> np.ndarray:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    grid = torch.tensor(patches).reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)
    if config.pool == "bilinear":
        pooled_side = -(-side // config.stride)
        pooled = functional.interpolate(grid, size=(pooled_side,) * 2, mode="bilinear")
    elif config.pool == "average":
        pooled = functional.avg_pool2d(grid, config.stride)
    else:
        pooled = functional.max_pool2d(grid, config.stride)
    return pooled.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("side", [27, 24, 5])
@pytest.mark.parametrize("pool", ["bilinear", "average", "max"])
def test_pooling_is_that_of_pytorch(pool: str, side: int) -> None:
    config = VisualTokensConfig(pool=pool, stride=2, newline="none")
    patches = np.random.default_rng(0).normal(size=(2, side**2, 3)).astype(np.float32)
    pooled = pool_patches(jnp.asarray(patches), config)
    expected = torch_pool(patches, side, config)
    assert pooled.shape == expected.shape
    assert pooled.shape[1] == config.pooled_side(side)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


@pytest.mark.parametrize("pool", ["average", "max"])
def test_the_last_row_and_column_of_an_odd_grid_are_dropped(pool: str) -> None:
    config = VisualTokensConfig(pool=pool, stride=2, newline="none")
    grid = np.random.default_rng(0).normal(size=(1, 5, 5, 2)).astype(np.float32)
    spoilt = grid.copy()
    spoilt[:, 4], spoilt[:, :, 4] = np.nan, np.nan
    pooled, same = (pool_patches(jnp.asarray(g).reshape(1, 25, 2), config) for g in (grid, spoilt))
    np.testing.assert_array_equal(pooled, same)


@pytest.mark.parametrize(
    ("newline", "frame", "end"),
    [
        ("grid", ["{f}00", "{f}01", "/", "{f}10", "{f}11", "/"], []),
        ("frame", ["{f}00", "{f}01", "{f}10", "{f}11", "/"], []),
        ("one_token", ["{f}00", "{f}01", "{f}10", "{f}11"], ["/"]),
        ("none", ["{f}00", "{f}01", "{f}10", "{f}11"], []),
    ],
)
def test_newlines_stand_where_they_belong(newline: str, frame: list[str], end: list[str]) -> None:
    config = VisualTokensConfig(pool="average", stride=1, newline=newline)
    # A token is named by its frame, row and column; the newline by a slash, as a number -1.
    names = [[100 * f + 10 * row + col for row in (0, 1) for col in (0, 1)] for f in range(3)]
    patches = jnp.asarray(names, jnp.float32)[..., None]
    slash = None if newline == "none" else jnp.full(1, -1.0)
    frames = frame_tokens(patches, slash, config)
    whole = video_tokens(frames[None], slash, config)[0, :, 0]
    expected = [name.format(f=f) for f in range(3) for name in frame] + end
    assert [("/" if number < 0 else f"{int(number):03d}") for number in whole] == expected
    assert frames.shape[1] == config.tokens_per_frame(2)
    assert len(whole) == config.tokens_per_video(2, 3)


# -------------------------------------------------------------------------------- the whole


@cache
def tiny() -> tuple[VideoLMMConfig, Any, Params]:
    content = small_model_json(vocab_rows=VOCAB)
    content |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    content |= {"mm_hidden_size": 16}
    content["vision_config"] |= {"hidden_size": 16, "intermediate_size": 24, "image_size": 28}
    config = config_from_json(content)
    return config, abstract_model(config)[0], random_params(config)


def tiny_frames(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 28, 28, 3), np.uint8)


def tiny_prompt(before: int, after: int, rng: np.random.Generator) -> Prompt:
    config, _, _ = tiny()
    visual = np.arange(config.tokens_per_video(FRAMES))
    none_before, none_after = np.full(before, -1), np.full(after, -1)
    visual_index = np.concatenate([none_before, visual, none_after]).astype(np.int32)
    tokens = np.where(visual_index < 0, rng.integers(0, VOCAB, len(visual_index)), 0)
    return Prompt(tokens=tokens.astype(np.int32), visual_index=visual_index)


def test_the_tower_in_chunks_equals_the_tower_at_once() -> None:
    config, _, params = tiny()
    frames, features = tiny_frames(7), []
    for chunk in (0, 7, 3, 1):
        vision = dataclasses.replace(config.vision, frames_per_chunk=chunk)
        graph, _ = abstract_model(dataclasses.replace(config, vision=vision))
        features.append(jit(lambda p, f, g=graph: nnx.merge(g, p).encode_frames(f))(params, frames))
    for chunked in features[1:]:
        np.testing.assert_allclose(chunked, features[0], atol=1e-5)


def test_pixels_are_rounded_to_half_precision_where_asked() -> None:
    config, _, params = tiny()
    frames = tiny_frames(2)

    def embedded(pixel_dtype: str, tower: VisionConfig) -> np.ndarray:
        vision = dataclasses.replace(tower, pixel_dtype=pixel_dtype)  # type: ignore[arg-type]
        graph, _ = abstract_model(dataclasses.replace(config, vision=vision))
        return np.asarray(jit(lambda p, f: nnx.merge(graph, p).vision._embed(f))(params, frames))

    # So that no pixel is a number that half precision holds as it is.
    tower = dataclasses.replace(config.vision, image_mean=(0.4,) * 3, image_std=(0.3,) * 3)
    whole, half = embedded("float32", tower), embedded("float16", tower)
    # Embedding is linear: what rounding takes from the pixels is missing in the same way.
    pixels = (frames.astype(np.float32) / 255 - np.float32(0.4)) / np.float32(0.3)
    lost = pixels - pixels.astype(np.float16).astype(np.float32)
    kernel = np.asarray(params["vision"]["patch"]["kernel"])
    side, size = tower.side, tower.patch_size
    cut = lost[:, : side * size, : side * size].reshape(len(frames), side, size, side, size, 3)
    patches = cut.transpose(0, 1, 3, 2, 4, 5).reshape(len(frames), side * side, -1)
    assert np.abs(whole - half).max() > 5e-4
    np.testing.assert_allclose(whole - half, patches @ kernel, atol=2e-5)


def test_layers_that_are_not_used_do_not_matter() -> None:
    config, _, params = tiny()
    vision = dataclasses.replace(config.vision, layers_used=2)
    graph, _ = abstract_model(dataclasses.replace(config, vision=vision))
    encode = jit(lambda params, frames: nnx.merge(graph, params).vision(frames))
    spoilt = jax.tree.map(np.copy, params)
    for leaf in jax.tree.leaves(spoilt["vision"]["layers"]):
        leaf[2] = np.nan
    spoilt["vision"]["post_norm"]["scale"][:] = np.nan
    frames = tiny_frames(1)
    np.testing.assert_array_equal(encode(spoilt, frames), encode(params, frames))


@jit
def last_logits(params: Params, row: dict[str, jax.Array], frames: jax.Array) -> jax.Array:
    """Logits at every place of a plain row."""
    model: VideoLMM = nnx.merge(tiny()[1], params)
    visual = model.encode_videos(frames)
    layout = row_layout(row["branch"])
    hidden, _ = model(row["tokens"], visual, row["visual_index"], row["positions"], layout)
    return model.logits(hidden)


def test_prefill_and_decode_equal_the_full_forward() -> None:
    config, graph, params = tiny()
    rng = np.random.default_rng(2)
    prompt, answer = tiny_prompt(3, 4, rng), rng.integers(0, VOCAB, 5).astype(np.int32)
    length, pad = 24, 24 - len(prompt.tokens)
    shape = RowShape(prompt_tokens=length, answer_tokens=len(answer))
    assert pad > 0
    places = length + len(answer) + 2  # the cache is longer than what is written
    frames = tiny_frames(FRAMES)[None]
    row = stack([prompt_row(prompt, length)])
    full = stack([make_row(prompt, [answer.tolist()], shape)])
    expected = last_logits(params, {k: full[k] for k in row}, frames)[0, length - 1 :]

    def keys_until(end: jax.Array | int) -> dict[str, Any]:
        place = jnp.arange(places, dtype=jnp.int32)[None]
        branch = jnp.where((place < pad) | (place >= end), PAD_BRANCH, 0)
        return {"order_k": place, "branch_k": branch}

    @jit
    def prefill(params: Params, row: dict[str, jax.Array], frames: jax.Array) -> Any:
        model: VideoLMM = nnx.merge(graph, params)
        layout = row_layout(row["branch"])
        visual = model.encode_videos(frames)
        empty = empty_cache(config.language, 1, places, jnp.float32)
        row_args = row["tokens"], visual, row["visual_index"], row["positions"]
        hidden, kept = model(*row_args, layout, empty)
        return model.logits(hidden[:, -1]), kept

    @jit
    def decode(params: Params, token: jax.Array, step: jax.Array, kept: Any) -> Any:
        model: VideoLMM = nnx.merge(graph, params)
        at = length + step
        order = jnp.full((1, 1), at, jnp.int32)
        layout = Layout(order_q=order, branch_q=jnp.zeros_like(order), **keys_until(at + 1))
        x = model.language.embed(token[None, None])
        hidden, kept = model.language(x, order - pad, layout, kept, at)
        return model.logits(hidden[:, -1]), kept

    logits, kept = prefill(params, row, frames)
    found = [logits[0]]
    for step, token in enumerate(answer):
        logits, kept = decode(params, jnp.asarray(token), jnp.asarray(step), kept)
        found.append(logits[0])
    np.testing.assert_allclose(jnp.stack(found), expected, atol=1e-4)
