"""Generation over a mesh of 8 devices says what one device says."""

import jax
import numpy as np
import pytest

from tests.generation.test_engine import END, NEW, asks_of, frames, prefix_of, prompt_on
from tests.tiny import tiny_model
from tpo_jax.generation.engine import Engine
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.parallel.mesh import MeshConfig, make_mesh
from tpo_jax.parallel.rules import param_shardings


@pytest.mark.parametrize(
    "axes",
    [
        {"data": 2, "fsdp": 2, "tensor": 2},
        pytest.param({"fsdp": 4, "context": 2}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 1, "tensor": 2, "data": 4}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_mesh_says_the_same(axes: dict[str, int]) -> None:
    config, graph, params = tiny_model(seed=3)
    params = {**params, "newline": params["newline"] * 3}
    settings = SamplingConfig(max_new_tokens=NEW, repetition_penalty=1.2)
    mesh = make_mesh(MeshConfig(**axes))
    on_mesh = jax.device_put(params, param_shardings(mesh, params))
    one = Engine(config, graph, params, end_token=END, sampling=settings, rows=3)
    many = Engine(config, graph, on_mesh, end_token=END, sampling=settings, rows=3, mesh=mesh)
    pictures = frames(0, 4)
    prompts = [prompt_on(one, [0, 2, 3], 4, seed, 3 + seed % 3) for seed in range(6)]
    said = []
    for made in (one, many):
        prefix = prefix_of(made, pictures, prompts[0], 128)
        told = made.answer(prefix, asks_of(prompts), chunk=2)
        told += made.answer(prefix, asks_of(prompts[:2], temperature=0.9), chunk=2)
        said.append(told)
        if made is many and axes.get("tensor", 1) > 1:  # heads are split, not copied
            assert prefix.k.sharding.shard_shape(prefix.k.shape)[2] * 2 == prefix.k.shape[2]
    for mine, theirs in zip(*said, strict=True):
        assert mine.tokens.tolist() == theirs.tokens.tolist()
        np.testing.assert_allclose(mine.logprobs, theirs.logprobs, atol=2e-5)
    assert len({tuple(answer.tokens.tolist()) for answer in said[0]}) > 1
