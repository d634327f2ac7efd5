"""What is read and written again is the same, tensor for tensor."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.golden import FAMILIES, golden_folder
from tests.random_params import random_params
from tests.small_model import small_model_json
from tpo_jax.errors import InputError
from tpo_jax.interop import keys
from tpo_jax.interop.reader import Checkpoint, read_checkpoint
from tpo_jax.interop.writer import write_checkpoint
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.video_lmm import abstract_model


def write(folder: Path, checkpoint: Checkpoint, **options) -> Path:
    write_checkpoint(
        folder,
        config=checkpoint.config,
        params=checkpoint.params,
        json=checkpoint.json,
        **options,
    )
    return folder


def load_folder(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of every safetensors file."""
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


@pytest.fixture(scope="module", params=FAMILIES)
def source(request: pytest.FixtureRequest) -> Path:
    return golden_folder(request.param)


def test_a_golden_checkpoint_comes_back_as_it_was(source: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(source)
    copy = write(tmp_path / "copy", checkpoint)
    assert_same(load_folder(copy), load_file(source / "model.safetensors"))
    config = json.loads((copy / "config.json").read_text())
    assert config == checkpoint.json | {"torch_dtype": "float32"}
    with safe_open(copy / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_hold_the_same_tensors(source: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(source)
    copy = write(tmp_path / "copy", checkpoint, max_shard_bytes=200_000)
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in copy.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert set(index["weight_map"].values()) == set(files)
    tensors = load_folder(copy)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    for name, file in index["weight_map"].items():
        assert name in load_file(copy / file)
    assert_same(tensors, load_file(source / "model.safetensors"))
    # The fingerprint says what is stored, not over how many files; config.json counts too.
    whole = write(tmp_path / "whole", checkpoint)
    assert read_checkpoint(copy).fingerprint == read_checkpoint(whole).fingerprint


def test_bfloat16_is_rounded_once_and_then_stays(source: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(source)
    half = write(tmp_path / "half", checkpoint, dtype="bfloat16")
    rounded = {
        name: tensor.astype(jnp.bfloat16)
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    assert_same(load_folder(half), rounded)
    assert json.loads((half / "config.json").read_text())["torch_dtype"] == "bfloat16"
    again = read_checkpoint(half)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(again.params))
    assert_same(load_folder(write(tmp_path / "again", again, dtype="bfloat16")), rounded)


def test_fp16_is_read_and_computed_buffers_are_skipped(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    stored = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    stored[f"{keys.LLAVA.tower}embeddings.position_ids"] = np.zeros((1, 9), np.int64)
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    found = read_checkpoint(tmp_path).params["language"]["norm"]["scale"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensors["model.norm.weight"].astype(np.float16))


def test_fingerprints_differ_where_a_weight_or_the_config_does(tmp_path: Path) -> None:
    checkpoint = demo_checkpoint(tmp_path / "first")
    fingerprints = {checkpoint.fingerprint}
    checkpoint.params["language"]["norm"]["scale"][0] += 1e-3
    fingerprints.add(read_checkpoint(write(tmp_path / "weight", checkpoint)).fingerprint)
    checkpoint.json["rope_theta"] = 2e4
    fingerprints.add(read_checkpoint(write(tmp_path / "config", checkpoint)).fingerprint)
    assert len(fingerprints) == 3


def demo_checkpoint(folder: Path, **fields) -> Checkpoint:
    content = small_model_json() | fields
    config = config_from_json(content)
    write_checkpoint(folder, config=config, params=random_params(config), json=content)
    return read_checkpoint(folder)


def test_vocabulary_rows_are_those_stored(tmp_path: Path) -> None:
    checkpoint = demo_checkpoint(tmp_path / "first")
    (tmp_path / "first/config.json").write_text(json.dumps(checkpoint.json | {"vocab_size": 999}))
    again = read_checkpoint(tmp_path / "first")
    assert again.config == checkpoint.config
    copy = write(tmp_path / "copy", again)
    assert json.loads((copy / "config.json").read_text())["vocab_size"] == 450


def test_tied_embeddings_have_no_head(tmp_path: Path) -> None:
    checkpoint = demo_checkpoint(tmp_path, tie_word_embeddings=True)
    assert "head" not in checkpoint.params["language"]
    assert "lm_head.weight" not in load_folder(tmp_path)


def test_side_files_come_along(tmp_path: Path) -> None:
    checkpoint = demo_checkpoint(tmp_path / "first")
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    copy = write(tmp_path / "copy", checkpoint, side_files=[tokenizer])
    assert (copy / "tokenizer.json").read_text() == "{}"
    with pytest.raises(InputError, match="merges.txt: not found"):
        write(tmp_path / "none", checkpoint, side_files=[tmp_path / "merges.txt"])
    assert not (tmp_path / "none").exists()


def test_parameters_of_another_model_are_not_written(tmp_path: Path) -> None:
    checkpoint = demo_checkpoint(tmp_path / "first")
    checkpoint.params["language"]["norm"]["scale"] = np.ones(7, np.float32)
    with pytest.raises(ValueError, match=r"language/norm/scale has shape \(7,\)"):
        write(tmp_path / "copy", checkpoint)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_one_name_and_every_name_one_parameter(family: str) -> None:
    content = json.loads((golden_folder(family) / "config.json").read_text())
    _, abstract = abstract_model(config_from_json(content))
    names = [
        name
        for path, leaf in keys.flat_paths(abstract)
        for name, _ in keys.their_tensors(path, leaf.shape)
    ]
    assert len(names) == len(set(names))


def test_layouts_are_undone() -> None:
    for path, shape in ((keys.PATCH_KERNEL, (12, 5)), ("projector/first/kernel", (2, 3))):
        ours = np.arange(np.prod(shape)).reshape(shape)
        theirs = keys.to_theirs(path, ours)
        assert theirs.shape == keys.their_shape(path, shape)
        np.testing.assert_array_equal(keys.to_ours(path, theirs), ours)
