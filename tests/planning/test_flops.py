"""Counted FLOPs against those XLA counts in the compiled model, and one row against two."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.quick_compile import QUICK
from tests.tiny import random_batch, tiny_model
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.presets import preset_json
from tpo_jax.models.remat import Remat
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model
from tpo_jax.planning.flops import (
    PARTS,
    RECOMPUTE,
    Flops,
    Recompute,
    RowDims,
    row_flops,
    two_row_flops,
)
from tpo_jax.preference.logprobs import row_logprobs

FRAMES, ANSWER, TARGETS, CHUNKS = 3, 8, 3, 2
EVERYTHING = frozenset({"vision", "projector", "newline", "language"})
RECIPE = frozenset({"projector", "newline", "language"})
# Dense attention keeps its scores; the vocabulary's are computed again.
DENSE = Recompute(kernel=0)


# What makes one part the largest of a small model, so that a wrong count of it is seen.
EMPHASIS: dict[str, dict[str, int]] = {
    "decoder": {},
    "head": {"vocab_rows": 8192},
    "attention": {"width": 128, "mlp_width": 64, "heads": 32, "head_width": 128},
    "projector": {"width": 1024, "mlp_width": 128, "heads": 2, "kv_heads": 1},
}


@cache
def one_layer(emphasis: str = "decoder", *, remat: Remat = "none") -> VideoLMMConfig:
    """One layer each, so that no loop runs twice, and wide enough for products to be nearly all."""
    config, _, _ = tiny_model()
    vision = replace(config.vision, width=256, mlp_width=640, layers=2, layers_used=1, heads=4)
    if emphasis != "decoder":
        vision = replace(vision, width=64, mlp_width=64)
    settings = {"vocab_rows": 1024, "width": 384, "mlp_width": 1024, "layers": 1}
    settings |= {"heads": 4, "kv_heads": 2, "head_width": 64} | EMPHASIS[emphasis]
    language = replace(config.language, remat=remat, **settings)  # type: ignore[arg-type]
    return replace(config, vision=vision, language=language)


def tiny_row(config: VideoLMMConfig) -> tuple[dict[str, np.ndarray], RowDims]:
    batch = random_batch(config, 0, 1, frames=FRAMES, prompt_targets=TARGETS)
    tokens = batch["tokens"].shape[1]
    dims = RowDims(prompt=tokens - 2 * ANSWER, answer=ANSWER, frames=FRAMES, prompt_targets=TARGETS)
    assert batch["prompt_targets"].shape[1] == TARGETS and tokens <= 128
    return batch, dims


def counted_by_xla(function: Callable[..., Any], *args: Any) -> float:
    analysis = jax.jit(function).lower(*args).compile(QUICK).cost_analysis()
    assert analysis is not None
    return float(analysis["flops"])


def as_counted_by_xla(counted: Flops, dims: RowDims, chunks: int = 1) -> Flops:
    """Dense attention scores all T x T pairs; of the vocabulary's chunks XLA counts one."""
    factors = {"attention": dims.tokens**2 / dims.seen_pairs, "head": 1 / chunks}

    def change(parts: Mapping[str, float]) -> dict[str, float]:
        return {part: value * factors.get(part, 1) for part, value in parts.items()}

    return Flops(
        forward=change(counted.forward),
        backward=change(counted.backward),
        recompute=change(counted.recompute),
    )


def test_forward_equals_what_xla_counts():
    config = one_layer()
    graph, shapes = abstract_model(config)
    batch, dims = tiny_row(config)

    def forward(params: Params) -> jax.Array:
        return row_logprobs(nnx.merge(graph, params), batch)

    def encode(params: Params) -> jax.Array:
        return nnx.merge(graph, params).encode_videos(batch["frames"])

    counted = as_counted_by_xla(row_flops(config, dims, trained=frozenset()), dims)
    assert counted.model_flops == counted.hardware_flops
    assert counted.model_flops == pytest.approx(counted_by_xla(forward, shapes), rel=0.03)
    encoding = counted.forward["tower"] + counted.forward["projector"]
    assert encoding == pytest.approx(counted_by_xla(encode, shapes), rel=0.03)
    # Every part is large enough that a wrong one would be seen.
    assert min(counted.forward[part] for part in ("tower", "projector", "decoder", "head")) > (
        0.04 * counted.model_flops
    )


@pytest.mark.parametrize(
    ("emphasis", "trained"),
    [
        ("decoder", EVERYTHING),
        pytest.param("decoder", {"newline"}, marks=pytest.mark.slow),
        ("head", RECIPE),
        pytest.param("head", {"projector"}, marks=pytest.mark.slow),
        ("attention", {"language"}),
        pytest.param("projector", {"projector"}, marks=pytest.mark.slow),
        ("projector", {"vision"}),
    ],
)
def test_a_step_equals_what_xla_counts(emphasis, trained):
    check_step(one_layer(emphasis), frozenset(trained), DENSE)


@pytest.mark.parametrize("emphasis", [pytest.param("decoder", marks=pytest.mark.slow), "attention"])
def test_a_layer_computed_again_stops_before_its_last_product(emphasis):
    check_step(one_layer(emphasis, remat="full"), RECIPE, replace(RECOMPUTE["full"], kernel=0))


def check_step(config: VideoLMMConfig, trained: frozenset[str], recompute: Recompute) -> None:
    graph, shapes = abstract_model(config)
    batch, dims = tiny_row(config)

    # Of a single chunk XLA would notice that it is computed twice.
    columns = config.language.vocab_rows // CHUNKS

    def loss(chosen: Params, rest: Params) -> jax.Array:
        model = nnx.merge(graph, {**chosen, **rest})
        return jnp.sum(row_logprobs(model, batch, columns=columns))

    chosen = {name: part for name, part in shapes.items() if name in trained}
    rest = {name: part for name, part in shapes.items() if name not in trained}
    counted = row_flops(config, dims, trained=trained, recompute=recompute)
    counted = as_counted_by_xla(counted, dims, CHUNKS)
    seen = counted_by_xla(jax.value_and_grad(loss), chosen, rest)
    assert counted.hardware_flops == pytest.approx(seen, rel=0.04)


def test_pairs_of_the_mask():
    dims = RowDims(prompt=5, answer=3, frames=0)
    branch = np.repeat([0, 1, 2], [5, 3, 3])
    place = np.arange(11)
    allowed = (place[None] <= place[:, None]) & (
        (branch[None] == 0) | (branch[None] == branch[:, None])
    )
    assert dims.seen_pairs == allowed.sum()
    assert (dims.tokens, dims.scored) == (11, 6)


def paper_row(frames: int) -> RowDims:
    return RowDims(prompt=27648, answer=512, frames=frames)


def test_one_row_costs_little_more_than_half_of_two(capsys):
    """LLaVA-Video-7B at 128 frames, equal remat; the issue asks for at most 0.55."""
    config = config_from_json(preset_json("llava_video_7b"))
    row = paper_row(128)
    ratios = {}
    for remat in ("none", "full"):
        one = row_flops(config, row, trained=RECIPE, recompute=remat)
        two = two_row_flops(config, row, trained=RECIPE, recompute=remat)
        shared = two_row_flops(config, row, trained=RECIPE, recompute=remat, share_tower=True)
        ratios[remat] = one.hardware_flops / two.hardware_flops
        with capsys.disabled():
            print(
                f"\n7B, 128 frames, remat {remat}: one row {one.hardware_flops:.3e} FLOP, two rows "
                f"{two.hardware_flops:.3e}, ratio {ratios[remat]:.3f} "
                f"(tower shared: {one.hardware_flops / shared.hardware_flops:.3f})"
            )
        assert one.hardware_flops < shared.hardware_flops < two.hardware_flops
    assert 0.5 < max(ratios.values()) <= 0.55


def test_two_rows_are_two_rows():
    config = one_layer()
    row = RowDims(prompt=40, answer=8, frames=3, prompt_targets=2)
    alone = row_flops(config, replace(row, answers=1), trained=RECIPE)
    two = two_row_flops(config, row, trained=RECIPE)
    assert two == alone.scaled(2)
    shared = two_row_flops(config, row, trained=RECIPE, share_tower=True)
    for part in PARTS:
        times = 1 if part in ("tower", "projector") else 2
        assert shared.by_part[part] == times * alone.by_part[part]


def test_parameters_times_tokens():
    """The rule of thumb: 6 FLOPs a parameter and token in training, without attention."""
    config = config_from_json(preset_json("llava_video_7b"))
    _, shapes = abstract_model(config)
    layers = shapes["language"]["layers"]
    matrices = sum(leaf.size for leaf in jax.tree.leaves(layers) if leaf.ndim == 3)
    row = paper_row(128)
    counted = row_flops(config, row, trained=RECIPE, recompute="none")
    decoder = counted.forward["decoder"] + counted.backward["decoder"]
    assert decoder == 6 * matrices * row.tokens
