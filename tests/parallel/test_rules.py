"""The sharding table: every parameter has one rule, and hardly any bytes are copied."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh

from tests.small_model import small_model_json
from tests.tiny import random_batch
from tpo_jax.errors import InputError
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.presets import PRESETS, preset_json
from tpo_jax.models.video_lmm import VideoLMMConfig, abstract_model
from tpo_jax.parallel.mesh import (
    ROW_ARRAYS,
    MeshConfig,
    check_batch,
    check_row,
    constrain_frames,
    constrain_rows,
    frame_ways,
    make_mesh,
    place_batch,
)
from tpo_jax.parallel.rules import check_heads, pad_vocabulary, param_shardings, spec_for
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen
from tpo_jax.training.step import init_state

MODELS = ("llava_video_7b", "longva_7b", "llava_onevision_0_5b")
EIGHT_WAYS = {
    "fsdp8": MeshConfig(fsdp=8),
    "context8": MeshConfig(fsdp=1, context=8),
    "fsdp4_context2": MeshConfig(fsdp=4, context=2),
    "fsdp4_tensor2": MeshConfig(fsdp=4, tensor=2),
    "fsdp2_context2_tensor2": MeshConfig(fsdp=2, context=2, tensor=2),
}


@cache
def preset(name: str) -> VideoLMMConfig:
    return config_from_json(preset_json(name))


def copied(mesh: Mesh, shapes: Any) -> float:
    """The part of all bytes that is not cut into as many parts as there are devices."""
    cut = whole = 0
    shardings = jax.tree.leaves(param_shardings(mesh, shapes))
    for leaf, sharding in zip(jax.tree.leaves(shapes), shardings, strict=True):
        size = leaf.size * leaf.dtype.itemsize
        whole += size
        if math.prod(sharding.shard_shape(leaf.shape)) * mesh.size == leaf.size:
            cut += size
    return 1 - cut / whole


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        pytest.param(
            name,
            mesh,
            id=f"{name}-{ways}",
            # Every model, and every mesh, once.
            marks=[] if name == MODELS[0] or ways == "fsdp2_context2_tensor2" else pytest.mark.slow,
        )
        for name in MODELS
        for ways, mesh in EIGHT_WAYS.items()
    ],
)
def test_under_two_percent_is_copied_on_8_devices(name: str, mesh: MeshConfig) -> None:
    """Of the parameters, and of the state of their optimizer; nothing is allocated."""
    found = make_mesh(mesh)
    config = pad_vocabulary(preset(name), found)
    check_heads(config, found)
    _, params = abstract_model(config)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-6), 100)
    state = jax.eval_shape(lambda p: init_state(*split_frozen(p, ("vision",)), optimizer), params)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) > 0.9e9
    for tree in (params, state.opt_state, state):
        assert copied(found, tree) < 0.02


@pytest.mark.parametrize("name", ["demo", *PRESETS])
def test_every_parameter_has_exactly_one_rule(name: str) -> None:
    config = config_from_json(small_model_json(96)) if name == "demo" else preset(name)
    _, shapes = abstract_model(config)
    param_shardings(make_mesh(MeshConfig(), devices=1), shapes)


def test_moments_lie_as_their_parameters_even_under_the_name_of_a_part() -> None:
    """As `optax.partition` keeps them: the name of the part is in the path twice."""
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    _, params = abstract_model(config_from_json(small_model_json(96)))
    found = param_shardings(mesh, {"states": {"language": {"mu": {"newline": params["newline"]}}}})
    assert found["states"]["language"]["mu"]["newline"].spec == spec_for("newline")
    found = param_shardings(mesh, {"vision": {"mu": {"language": params["language"]}}})
    table = found["vision"]["mu"]["language"]["embed"]["embedding"]
    assert table.spec == spec_for("language/embed/embedding")


def test_a_parameter_without_a_rule_is_an_error() -> None:
    with pytest.raises(InputError, match="language/gate/kernel: 0 sharding rules"):
        spec_for("language/gate/kernel")


def test_a_mesh_that_does_not_divide_is_a_sentence() -> None:
    demo = config_from_json(small_model_json(96))
    _, params = abstract_model(replace(demo, language=replace(demo.language, width=36)))
    with pytest.raises(InputError, match=r"36 does not divide over fsdp\*context=8.*mesh.context"):
        param_shardings(make_mesh(MeshConfig(fsdp=4, context=2)), params)
    with pytest.raises(InputError, match="does not multiply to the 8 devices"):
        make_mesh(MeshConfig(data=3, fsdp=1))
    with pytest.raises(InputError, match="does not multiply to the 8 devices"):
        make_mesh(MeshConfig(context=3))
    with pytest.raises(InputError, match="mesh.context=0"):
        make_mesh(MeshConfig(context=0))
    with pytest.raises(InputError, match="only one axis"):
        make_mesh(MeshConfig(context=-1))
    with pytest.raises(InputError, match="multiple of 8"):
        check_batch(make_mesh(MeshConfig(fsdp=8)), 12)
    with pytest.raises(InputError, match="context=8 does not divide the 84 tokens.*such as 4"):
        check_row(make_mesh(MeshConfig(fsdp=1, context=8)), 84)


def test_an_axis_takes_what_the_others_leave() -> None:
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, context=-1, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "context": 2, "tensor": 2}


def test_heads_are_not_cut() -> None:
    for name, tensor, named in (
        ("llava_video_7b", 8, "tensor=8 does not divide the 28 query heads.* divisor of 4$"),
        ("llava_onevision_0_5b", 4, "tensor=4 does not divide the 14 query heads.* divisor of 2$"),
    ):
        with pytest.raises(InputError, match=named):
            check_heads(preset(name), make_mesh(MeshConfig(tensor=tensor)))
    demo = config_from_json(small_model_json(96))
    with pytest.raises(InputError, match="the 2 key heads of the decoder"):
        check_heads(demo, make_mesh(MeshConfig(tensor=4)))
    wide = replace(demo, language=replace(demo.language, heads=8, kv_heads=8))
    with pytest.raises(InputError, match="the 4 heads of the vision tower"):
        check_heads(wide, make_mesh(MeshConfig(tensor=8)))


def test_a_batch_lies_over_rows_tokens_and_frames() -> None:
    config = config_from_json(small_model_json(96))
    batch = random_batch(config, 0, rows=4, frames=4)
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, context=2, tensor=2))
    for name, array in place_batch(mesh, batch).items():
        cuts = (2, 2) if name in (*ROW_ARRAYS, "frames") else (2, 1)
        wanted = (array.shape[0] // cuts[0], array.shape[1] // cuts[1], *array.shape[2:])
        assert all(shard.data.shape == wanted for shard in array.addressable_shards), name
    odd = random_batch(config, 0, rows=4, frames=3)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, context=2))
    assert place_batch(mesh, odd)["frames"].sharding.shard_shape(odd["frames"].shape)[1] == 3
    with pytest.raises(InputError, match="batch_pairs=3"):
        place_batch(mesh, random_batch(config, 0, rows=3))


def test_activations_are_kept_where_rows_and_tokens_are() -> None:
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, context=2))
    laid = jax.jit(lambda x: (constrain_rows(x), constrain_frames(x), frame_ways() * x))
    x_BTD = jnp.ones((8, 4, 2))
    with jax.set_mesh(mesh):
        rows, frames, ways = laid(x_BTD)
    assert rows.sharding.shard_shape(rows.shape) == (2, 2, 2)
    assert frames.sharding.shard_shape(frames.shape) == (1, 4, 2)
    assert ways[0, 0, 0] == 8
    with jax.set_mesh(mesh):  # one token: what is generated
        assert laid(x_BTD[:, :1])[0].shape == (8, 1, 2)
    assert laid(x_BTD)[2][0, 0, 0] == 1  # without a mesh
