"""Write a checkpoint folder in a PyTorch layout: the authors' or transformers' LlavaOnevision."""

import json as json_module
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors.numpy import save_file

from tpo_jax.errors import InputError
from tpo_jax.interop import keys
from tpo_jax.interop.reader import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, Progress
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(jnp.bfloat16)}
# The library that writes a shard holds it in memory twice.
MAX_SHARD_BYTES = 2 * 10**9


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """A tensor of theirs, not yet read: its size decides which shard it goes to."""

    name: str
    path: str
    layer: int
    size: int
    dtype: np.dtype


def write_checkpoint(
    folder: epath.PathLike,
    *,
    config: VideoLMMConfig,
    params: Params,
    json: Mapping[str, Any],
    naming: keys.Naming = keys.LLAVA,
    dtype: str | None = "float32",
    side_files: Sequence[epath.PathLike] = (),
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes config.json, the weights under their PyTorch names and copies of the side files.

    Files are written in place; making the folder appear only when whole is the caller's job. One
    parameter and one shard at a time are held in memory beside `params`.

    Args:
      folder: local or in a bucket (gs://); made if missing.
      config: the settings that `params` belong to.
      params: nested dict of arrays, or of what numpy can turn into one; rounded to nearest even
        where `dtype` is shorter. Rows that pad the vocabulary are left out.
      json: config.json in the layout of `naming`; the vocabulary's size and, where `dtype` is
        given, the dtype are set anew.
      naming: what the tensors are called.
      dtype: how tensors are stored; None keeps each as it is.
      side_files: copied under their own names (tokenizer, generation settings).
      max_shard_bytes: above it, the weights go into several files with an index.
      progress: called as `progress(done, total, detail)` with bytes and a file's name.

    Raises:
      InputError: a side file is missing.
      ValueError: `params` are not those of `config`, or `dtype` is not known.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}")
    for file in side_files:
        if not epath.Path(file).exists():
            raise InputError(f"{file}: not found; it belongs to the checkpoint")
    leaves = dict(keys.flat_paths(params))
    _check_params(leaves, config)
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = _described(json, config.language.vocab_rows, dtype)
    (folder / CONFIG_FILE).write_text(json_module.dumps(content, indent=2, sort_keys=True) + "\n")
    for file in side_files:
        epath.Path(file).copy(folder / epath.Path(file).name, overwrite=True)

    shards = _split(list(_tensors(config, leaves, naming, dtype)), max_shard_bytes)
    total = sum(tensor.size for shard in shards for tensor in shard)
    done = 0
    places: dict[str, str] = {}
    source = _Source(leaves, config.language.vocab_rows)
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS_FILE
        if len(shards) > 1:
            stem, _, suffix = WEIGHTS_FILE.partition(".")
            name = f"{stem}-{number:05d}-of-{len(shards):05d}.{suffix}"
        arrays = {tensor.name: source.array(tensor) for tensor in shard}
        _save(arrays, folder / name)
        places |= dict.fromkeys(arrays, name)
        done += sum(tensor.size for tensor in shard)
        if progress:
            progress(done, total, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX_FILE).write_text(json_module.dumps(index, indent=2) + "\n")


class _Source:
    """Gives tensors out of parameters, holding one parameter at a time as an array."""

    def __init__(self, leaves: Mapping[str, Any], rows: int):
        self._leaves = leaves
        self._rows = rows
        self._path = ""
        self._array = np.zeros(0)

    def array(self, tensor: _Tensor) -> np.ndarray:
        if tensor.path != self._path:
            self._array = np.zeros(0)  # the one before goes before the next comes
            self._array = np.asarray(self._leaves[tensor.path])
            self._path = tensor.path
        ours = self._array[tensor.layer] if keys.is_stacked(tensor.path) else self._array
        theirs = keys.to_theirs(tensor.path, ours)
        if tensor.path in keys.VOCABULARY:
            theirs = theirs[: self._rows]
        # Always a copy: a view would keep the whole parameter in memory.
        return np.array(theirs, dtype=tensor.dtype, order="C")


def _save(arrays: Mapping[str, np.ndarray], path: epath.Path) -> None:
    metadata = {"format": "pt"}  # transformers refuses a file that does not say so
    if "://" not in str(path):
        save_file(dict(arrays), str(path), metadata=metadata)
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / path.name
        save_file(dict(arrays), local, metadata=metadata)
        epath.Path(local).copy(path, overwrite=True)


def _described(json: Mapping[str, Any], rows: int, dtype: str | None) -> dict[str, Any]:
    content = dict(json)
    parts = [part for part in ("text_config", "vision_config") if part in content]
    content |= {part: dict(content[part]) for part in parts}
    content.get("text_config", content)["vocab_size"] = rows
    if dtype is not None:
        for described in (content, *(content[part] for part in parts)):
            # `dtype` is what newer libraries call torch_dtype; two that differ would be a riddle.
            if described.pop("dtype", None) or "torch_dtype" in described or described is content:
                described["torch_dtype"] = dtype
    return content


def _check_params(leaves: Mapping[str, Any], config: VideoLMMConfig) -> None:
    _, abstract = abstract_model(config)
    wanted = {path: leaf.shape for path, leaf in keys.flat_paths(abstract)}
    found = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    differing = sorted(path for path in wanted | found if wanted.get(path) != found.get(path))
    if differing:
        path = differing[0]
        raise ValueError(
            f"{len(differing)} parameters are not those of the config; {path} has shape "
            f"{found.get(path)}, expected {wanted.get(path)}"
        )


def _tensors(
    config: VideoLMMConfig, leaves: Mapping[str, Any], naming: keys.Naming, dtype: str | None
) -> Iterator[_Tensor]:
    for path, leaf in sorted(leaves.items()):
        stored = DTYPES[dtype] if dtype else np.dtype(leaf.dtype)
        for layer, (name, shape) in enumerate(keys.their_tensors(path, leaf.shape, naming)):
            rows = (config.language.vocab_rows, *shape[1:])
            size = int(np.prod(rows if path in keys.VOCABULARY else shape)) * stored.itemsize
            yield _Tensor(name=name, path=path, layer=layer, size=size, dtype=stored)


def _split(tensors: Sequence[_Tensor], max_bytes: int) -> list[list[_Tensor]]:
    """Consecutive tensors, each shard as full as it may be; a huge tensor goes alone.

    In the order of our parameters, since a parameter stands for a tensor of every layer and is
    read once.
    """
    shards: list[list[_Tensor]] = [[]]
    room = max_bytes
    for tensor in tensors:
        if tensor.size > room and shards[-1]:
            shards.append([])
            room = max_bytes
        shards[-1].append(tensor)
        room -= tensor.size
    return shards
