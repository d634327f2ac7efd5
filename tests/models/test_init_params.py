"""Random parameters: the same values however they are sharded, and never whole on one device."""

import re
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from tests.small_model import small_model_json
from tpo_jax.models import video_lmm
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model, init_params
from tpo_jax.parallel.mesh import MeshConfig, make_mesh
from tpo_jax.parallel.rules import param_shardings, path_of, spec_for

VOCABULARY, PADDING = 96, 8


@cache
def config() -> VideoLMMConfig:
    """A small model with a padded vocabulary."""
    content = small_model_json(VOCABULARY)
    content |= {"hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 1}
    content |= {"mm_hidden_size": 16}
    content["vision_config"] |= {"hidden_size": 16, "intermediate_size": 24}
    content["vision_config"] |= {"num_hidden_layers": 1, "layers_used": 1}
    read = config_from_json(content)
    return replace(read, language=replace(read.language, padding_rows=PADDING))


@cache
def shardings() -> Params:
    _, shapes = abstract_model(config())
    return param_shardings(make_mesh(MeshConfig(fsdp=4, tensor=2)), shapes)


@cache
def whole() -> Params:
    return init_params(config(), 3)


@cache
def sharded() -> Params:
    return init_params(config(), 3, shardings())


def leaves(params: Any) -> dict[str, Any]:
    return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(params)}


def test_sharding_does_not_change_a_value() -> None:
    for path, leaf in leaves(sharded()).items():
        np.testing.assert_array_equal(leaf, leaves(whole())[path], err_msg=path)


def test_every_parameter_lies_as_its_rule_says() -> None:
    wanted = leaves(shardings())
    replicated = 0
    for path, leaf in leaves(sharded()).items():
        assert leaf.sharding.is_equivalent_to(wanted[path], leaf.ndim), path
        held = {shard.data.shape for shard in leaf.addressable_shards}
        assert held == {wanted[path].shard_shape(leaf.shape)}, path
        if leaf.sharding.is_fully_replicated:
            assert spec_for(path) == P(), path
            replicated += 1
    assert 0 < replicated < len(wanted)


def test_no_device_makes_a_whole_parameter() -> None:
    """In the program of one device, no array has the shape of a parameter that is sharded."""
    draw = jax.jit(video_lmm._draw_params, static_argnums=0, out_shardings=shardings())
    program = draw.lower(config(), 3).compile().as_text()
    assert program is not None
    made = set(re.findall(r"f32\[([\d,]*)\]", program))
    shapes, specs = leaves(abstract_model(config())[1]), leaves(shardings())
    split = {path for path in shapes if not specs[path].is_fully_replicated}
    held = {specs[path].shard_shape(shapes[path].shape) for path in split}
    whole_shapes = {shapes[path].shape for path in split} - held
    assert len(whole_shapes) > 5
    assert ",".join(map(str, next(iter(held)))) in made  # the shapes are found where they are
    for shape in whole_shapes:
        assert ",".join(map(str, shape)) not in made


def test_the_seed_decides() -> None:
    again, other = init_params(config(), 3), init_params(config(), 4)
    for path in ("language/embed/embedding", "vision/layers/fc1/kernel", "newline"):
        first = leaves(whole())[path]
        assert np.array_equal(leaves(again)[path], first)
        assert not np.array_equal(leaves(other)[path], first)


def test_values_are_those_of_the_modules() -> None:
    _, shapes = abstract_model(config())
    assert leaves(whole()).keys() == leaves(shapes).keys()
    for path, leaf in leaves(whole()).items():
        assert leaf.dtype == np.float32, path
        assert leaf.shape == leaves(shapes)[path].shape, path
        name = path.rpartition("/")[2]
        if name in ("kernel", "embedding", "newline"):
            assert 0.01 < np.std(leaf) < 2, path
        else:
            assert np.all(leaf == (name == "scale")), path


def test_rows_that_pad_the_vocabulary_are_zeros() -> None:
    params = whole()["language"]
    for table in (params["embed"]["embedding"], params["head"]["kernel"].T):
        assert table.shape[0] == VOCABULARY + PADDING
        assert not np.any(table[VOCABULARY:])
        assert np.all(np.any(table[:VOCABULARY] != 0, axis=1))


def test_a_tied_head_is_not_made() -> None:
    tied = replace(config(), language=replace(config().language, tied_embeddings=True))
    made = jax.eval_shape(lambda: init_params(tied, 3))
    assert "head" not in made["language"]
