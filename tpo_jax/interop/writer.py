"""Write a checkpoint folder in the authors' format."""

import json as json_module
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from tpo_jax.errors import InputError
from tpo_jax.interop import keys
from tpo_jax.interop.reader import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(jnp.bfloat16)}
MAX_SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """Where a tensor of theirs is found in our parameters."""

    name: str
    path: str
    leaf: Any
    layer: int
    size: int

    def array(self, dtype: np.dtype) -> np.ndarray:
        ours = self.leaf[self.layer] if keys.is_stacked(self.path) else self.leaf
        return np.ascontiguousarray(keys.to_theirs(self.path, np.asarray(ours)).astype(dtype))


def write_checkpoint(
    folder: Path,
    *,
    config: VideoLMMConfig,
    params: Params,
    json: Mapping[str, Any],
    dtype: Literal["float32", "bfloat16"] = "float32",
    tokenizer_files: Sequence[Path] = (),
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes config.json, the weights under the authors' names and copies of the tokenizer's files.

    Files are written in place; making the folder appear only when whole is the caller's job. One
    shard at a time is held in memory beside the parameters.

    Args:
      folder: made if missing.
      config: the settings that `params` belong to.
      params: nested dict of arrays; rounded to nearest even where `dtype` is shorter.
      json: config.json of the checkpoint that this one comes from; vocab_size and torch_dtype are
        set anew.
      dtype: how tensors are stored.
      tokenizer_files: copied under their own names.
      max_shard_bytes: above it, the weights go into several files with an index.

    Raises:
      InputError: a tokenizer file is missing.
      ValueError: `params` are not those of `config`, or `dtype` is none of the two.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}")
    for file in tokenizer_files:
        if not Path(file).is_file():
            raise InputError(f"{file}: not found; it belongs to the tokenizer of the checkpoint")
    _check_params(params, config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    # `dtype` is what newer libraries call torch_dtype; two that differ would be a riddle.
    content = {key: value for key, value in json.items() if key != "dtype"}
    content |= {"vocab_size": config.language.vocab_rows, "torch_dtype": dtype}
    (folder / CONFIG_FILE).write_text(json_module.dumps(content, indent=2, sort_keys=True) + "\n")
    for file in tokenizer_files:
        shutil.copyfile(file, folder / Path(file).name)

    stored = DTYPES[dtype]
    shards = _split(list(_tensors(params, stored.itemsize)), max_shard_bytes)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS_FILE
        if len(shards) > 1:
            stem, _, suffix = WEIGHTS_FILE.partition(".")
            name = f"{stem}-{number:05d}-of-{len(shards):05d}.{suffix}"
        arrays = {tensor.name: tensor.array(stored) for tensor in shard}
        # Transformers refuses a file that does not say so.
        save_file(arrays, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(arrays, name)
    if len(shards) > 1:
        total = sum(tensor.size for shard in shards for tensor in shard)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX_FILE).write_text(json_module.dumps(index, indent=2) + "\n")


def _check_params(params: Params, config: VideoLMMConfig) -> None:
    _, abstract = abstract_model(config)
    wanted = {path: leaf.shape for path, leaf in keys.flat_paths(abstract)}
    found = {path: leaf.shape for path, leaf in keys.flat_paths(params)}
    differing = sorted(path for path in wanted | found if wanted.get(path) != found.get(path))
    if differing:
        path = differing[0]
        raise ValueError(
            f"{len(differing)} parameters are not those of the config; {path} has shape "
            f"{found.get(path)}, expected {wanted.get(path)}"
        )


def _tensors(params: Params, itemsize: int) -> Iterator[_Tensor]:
    for path, leaf in keys.flat_paths(params):
        for layer, (name, shape) in enumerate(keys.their_tensors(path, leaf.shape)):
            size = int(np.prod(shape)) * itemsize
            yield _Tensor(name=name, path=path, leaf=leaf, layer=layer, size=size)


def _split(tensors: Sequence[_Tensor], max_bytes: int) -> list[list[_Tensor]]:
    """Consecutive tensors by name, each shard as full as it may be; a huge tensor goes alone."""
    shards: list[list[_Tensor]] = [[]]
    room = max_bytes
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        if tensor.size > room and shards[-1]:
            shards.append([])
            room = max_bytes
        shards[-1].append(tensor)
        room -= tensor.size
    return shards
