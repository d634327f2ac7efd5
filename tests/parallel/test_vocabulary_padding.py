"""Rows that pad the vocabulary change nothing but the shape of two tables."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from tests.quick_compile import QUICK
from tests.tiny import VOCABULARY, random_batch, tiny_model
from tpo_jax.models.chunks import count_chunks
from tpo_jax.models.video_lmm import abstract_model
from tpo_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh
from tpo_jax.parallel.rules import VOCABULARY_MULTIPLE, pad_vocabulary, param_shardings
from tpo_jax.preference.logprobs import CHUNK_COLUMNS, row_logprobs
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.step import init_state, make_train_step

ROWS = VOCABULARY - 1  # divides over nothing


def padded(params: dict, padding: int, fill: float) -> dict:
    language = dict(params["language"])
    embedding = language["embed"]["embedding"]
    language["embed"] = {"embedding": np.pad(embedding, ((0, padding), (0, 0)))}
    if "head" in language:
        kernel = language["head"]["kernel"]
        language["head"] = {
            "kernel": np.pad(kernel, ((0, 0), (0, padding)), constant_values=fill),
        }
    return {**params, "language": language}


def test_loss_and_update_are_those_of_the_table_without_padding() -> None:
    config, graph, params = tiny_model(vocab_rows=ROWS)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    wide = pad_vocabulary(config, mesh)
    padding = wide.language.padding_rows
    assert padding == VOCABULARY_MULTIPLE - ROWS
    wide_graph, shapes = abstract_model(wide)
    batch = random_batch(config, seed=3, rows=4, prompt_targets=4)
    for name in ("tokens", "answers", "prompt_targets"):
        batch[name] = np.minimum(batch[name], ROWS - 1)
    # Plain descent: Adam would blow the rounding of tiny gradients up to whole steps.
    optimizer = optax.sgd(1.0)
    states = []
    # A padded head of ones would take probability, were it not masked.
    for structure, start, shardings in (
        (graph, params, None),
        (wide_graph, padded(params, padding, 1.0), param_shardings(mesh, shapes)),
    ):
        step = jax.jit(
            make_train_step(structure, TPOLoss(beta=0.3), optimizer, np.dtype("float32")),
            compiler_options=QUICK,
        )
        placed = jax.device_put(start, shardings) if shardings else start
        rows = jax.device_put(batch, batch_sharding(mesh)) if shardings else batch
        state, metrics = step(init_state(placed, {}, optimizer), rows)
        states.append((jax.device_get(state.trained), jax.device_get(metrics)))
    (plain, plain_metrics), (cut, metrics) = states
    for name, value in plain_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
    cut["language"]["embed"]["embedding"] = cut["language"]["embed"]["embedding"][:ROWS]
    kernel = cut["language"]["head"]["kernel"]
    # A row that is never said and never read gets no gradient.
    np.testing.assert_array_equal(kernel[:, ROWS:], 1.0)
    cut["language"]["head"]["kernel"] = kernel[:, :ROWS]
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(cut), jax.tree.leaves(plain), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=str(path))


@pytest.mark.parametrize("tied", [False, True])
def test_logits_of_padding_are_minus_infinity(tied: bool) -> None:
    config, _, params = tiny_model(vocab_rows=ROWS, tied_embeddings=tied)
    wide = replace(config, language=replace(config.language, padding_rows=5))
    graph, _ = abstract_model(wide)
    params = padded(params, 5, 9.0)
    logits = nnx.merge(graph, params).logits(np.ones((2, config.language.width), np.float32))
    assert logits.shape == (2, ROWS + 5)
    assert np.all(np.isneginf(logits[:, ROWS:])) and np.all(np.isfinite(logits[:, :ROWS]))
    batch = random_batch(config, seed=1, rows=1)
    batch["answers"] = np.minimum(batch["answers"], ROWS - 1)
    score = jax.jit(lambda p, b: row_logprobs(nnx.merge(graph, p), b), compiler_options=QUICK)
    assert np.all(np.isfinite(score(params, batch)))


def test_a_vocabulary_that_divides_is_not_padded() -> None:
    config, _, _ = tiny_model(vocab_rows=3 * VOCABULARY_MULTIPLE)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    assert pad_vocabulary(config, mesh) == config


def test_a_vocabulary_that_is_not_split_is_not_padded() -> None:
    """An import keeps the table as it is stored, whatever the number of devices."""
    config, _, _ = tiny_model(vocab_rows=ROWS)
    assert pad_vocabulary(config, make_mesh(MeshConfig(fsdp=4, context=2))) == config


@pytest.mark.parametrize("tensor", [2, 4, 8])
@pytest.mark.parametrize("rows", [95, 32_000, 49_153, 128_256, 151_646, 151_936, 152_064, 152_128])
def test_every_chunk_of_a_padded_vocabulary_divides_over_the_mesh(rows: int, tensor: int) -> None:
    config, _, _ = tiny_model()
    config = replace(config, language=replace(config.language, vocab_rows=rows))
    wide = pad_vocabulary(config, make_mesh(MeshConfig(data=1, fsdp=-1, tensor=tensor))).language
    assert 0 <= wide.padding_rows < VOCABULARY_MULTIPLE
    width, rest = divmod(wide.table_rows, count_chunks(wide.table_rows, CHUNK_COLUMNS))
    assert rest == 0 and width % tensor == 0
    assert width <= CHUNK_COLUMNS and (width > CHUNK_COLUMNS // 2 or width == wide.table_rows)
