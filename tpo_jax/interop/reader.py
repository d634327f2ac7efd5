"""Read a checkpoint folder in a PyTorch layout: the authors' or transformers' LlavaOnevision."""

import hashlib
import json as json_module
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tpo_jax.errors import InputError
from tpo_jax.interop import keys
from tpo_jax.interop.tensor_file import StoredTensor, read_header
from tpo_jax.models.checkpoint_config import model_config
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model
from tpo_jax.parallel.rules import pad_vocabulary, param_shardings

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LISTED = 3

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
      config: the model's settings; vocabulary rows are those of the stored embedding.
      params: nested plain dict of arrays, as `abstract_model(config)` has them.
      json: the content of config.json, to be handed on when the model is written again.
      naming: what its tensors are called.
      fingerprint: 16 hex digits over config.json and every tensor as stored. How the tensors are
        spread over files does not count.
    """

    config: VideoLMMConfig
    params: Params
    json: dict[str, Any]
    naming: keys.Naming
    fingerprint: str


class KeysDiffer(InputError):
    """A checkpoint's tensors are not those of its config.json; `report` has a line for each."""

    def __init__(self, folder: epath.Path, faults: Mapping[str, Sequence[str]]):
        said = "; ".join(_listed(fault, names) for fault, names in faults.items() if names)
        super().__init__(
            f"{folder}: its tensors are not those that {CONFIG_FILE} describes: {said}"
        )
        self.report = "\n".join(f"{fault}: {name}" for fault in faults for name in faults[fault])


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """A checkpoint folder whose headers are read and checked; no weight is."""

    config: VideoLMMConfig
    json: dict[str, Any]
    naming: keys.Naming
    tensors: Mapping[str, StoredTensor]

    def stored(self, path: str, shape: tuple[int, ...]) -> list[StoredTensor]:
        """The tensors that the parameter `path` of our `shape` stands for, layer by layer."""
        return [self.tensors[name] for name, _ in keys.their_tensors(path, shape, self.naming)]


def read_checkpoint(
    folder: epath.PathLike,
    *,
    weights: str | None = None,
    dtype: Any = np.float32,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Reads config.json and model.safetensors, or the shards that its index names.

    One tensor at a time is held beside the parameters.

    Args:
      folder: local or in a bucket (gs://).
      weights: the name of the one weights file, where it is not model.safetensors.
      dtype: of the parameters; None keeps them as they are stored.
      mesh: where the parameters go, laid out by the sharding rules, with the vocabulary padded to
        divide over it. Without one they are numpy arrays on this host.
      progress: called as `progress(done, total, detail)` with bytes and a tensor's name.

    Raises:
      InputError: a file is missing or broken, config.json asks for what is not implemented, or the
        tensors are not exactly those of the model that it describes. Names the file and the mend.
    """
    files = open_checkpoint(folder, weights=weights)
    leaves = ParameterStream(files, dtype=dtype, mesh=mesh, progress=progress)
    arrays = {tuple(path.split("/")): leaf for path, leaf in leaves}
    return Checkpoint(
        config=leaves.config,
        params=nnx.traversals.unflatten_mapping(arrays),
        json=files.json,
        naming=files.naming,
        fingerprint=leaves.fingerprint,
    )


class ParameterStream:
    """Gives (path, array) of every parameter in turn; arguments as `read_checkpoint`.

    Attributes:
      config: the settings, with the padding that the mesh needs.
      sizes: bytes of every parameter, in the order in which they are given.
      fingerprint: known when all parameters have been given.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        *,
        dtype: Any = np.float32,
        mesh: Mesh | None = None,
        progress: Progress | None = None,
    ):
        self.config = files.config if mesh is None else pad_vocabulary(files.config, mesh)
        self.fingerprint = ""
        self._files = files
        self._progress = progress
        _, shapes = abstract_model(self.config)
        self._shapes = dict(sorted(keys.flat_paths(shapes)))
        self._shardings = (
            {} if mesh is None else dict(keys.flat_paths(param_shardings(mesh, shapes)))
        )
        unpadded = _shapes(files.config)
        self._stored = {path: files.stored(path, unpadded[path]) for path in self._shapes}
        self._dtypes = {
            path: jnp.dtype(dtype or _common_dtype(tensors))
            for path, tensors in self._stored.items()
        }
        self.sizes = {
            path: math.prod(leaf.shape) * self._dtypes[path].itemsize
            for path, leaf in self._shapes.items()
        }

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        digest = hashlib.sha256()
        total = sum(tensor.size for tensor in self._files.tensors.values())
        done = 0
        for path, shaped in self._shapes.items():
            sink = _Sink(path, shaped.shape, self._dtypes[path], self._shardings.get(path))
            for layer, tensor in enumerate(self._stored[path]):
                array = tensor.read()
                digest.update(f"{tensor.name} {_dtype_name(tensor.dtype)} {tensor.shape}".encode())
                digest.update(array.reshape(-1).view(np.uint8).data)
                sink.put(layer, keys.to_ours(path, array))
                done += tensor.size
                if self._progress:
                    self._progress(done, total, tensor.name)
            leaf = sink.leaf
            del sink
            yield path, leaf
            del leaf  # the caller may be done with it
        digest.update(json_module.dumps(self._files.json, sort_keys=True).encode())
        self.fingerprint = digest.hexdigest()[:16]


class _Sink:
    """Gathers one parameter, a layer at a time, on this host or in its shards."""

    def __init__(
        self, path: str, shape: tuple[int, ...], dtype: Any, sharding: NamedSharding | None
    ):
        self._dtype = jnp.dtype(dtype)
        self._sharding = sharding
        self._stacked = keys.is_stacked(path)
        self._shape = shape
        if sharding is None:
            self.leaf: Any = np.zeros(shape, self._dtype)
        elif self._stacked:
            zeros = jax.jit(lambda: jnp.zeros(shape, self._dtype), out_shardings=sharding)
            self.leaf = zeros()
            self._layer_sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))

    def put(self, layer: int, array: np.ndarray) -> None:
        """One layer's array (or the whole one), without the rows that pad the vocabulary."""
        if self._sharding is None:
            target = self.leaf[layer] if self._stacked else self.leaf
            target[tuple(slice(size) for size in array.shape)] = array
        elif self._stacked:
            placed = _place(array, self._shape[1:], self._dtype, self._layer_sharding)
            # Waiting keeps the next tensors from piling up on the host.
            self.leaf = jax.block_until_ready(_set_layer(self.leaf, placed, layer))
        else:
            self.leaf = _place(array, self._shape, self._dtype, self._sharding)


@jax.jit(donate_argnums=0)
def _set_layer(stack: jax.Array, array: jax.Array, layer: int) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stack, array, layer, axis=0)


def _place(
    array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, sharding: NamedSharding
) -> jax.Array:
    """The array in its shards; each is copied, cast and padded by itself."""

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        part = array[index]
        wanted = [len(range(*s.indices(size))) for s, size in zip(index, shape, strict=True)]
        missing = [(0, size - got) for size, got in zip(wanted, part.shape, strict=True)]
        return np.pad(part, missing).astype(dtype) if any(map(max, missing)) else part.astype(dtype)

    return jax.make_array_from_callback(shape, sharding, shard)


def open_checkpoint(folder: epath.PathLike, *, weights: str | None = None) -> CheckpointFiles:
    """Reads config.json and the headers of the weights, and checks that they fit.

    Raises:
      InputError: as `read_checkpoint`.
    """
    folder = epath.Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of a checkpoint")
    json = read_config(folder)
    tensors = _open(_weight_files(folder, weights))
    naming = keys.find_naming(tensors) or keys.LLAVA
    embedding = tensors.get(keys.their_name("language/embed/embedding", naming=naming))
    try:
        rows = embedding.shape[0] if embedding and embedding.shape else None
        config = model_config(json, vocab_rows=rows)
    except InputError as error:
        raise InputError(f"{folder / CONFIG_FILE}: {error}") from error
    _check_tensors(folder, tensors, _shapes(config), naming)
    return CheckpointFiles(config=config, json=json, naming=naming, tensors=tensors)


def read_config(folder: epath.PathLike) -> dict[str, Any]:
    """Reads a checkpoint's config.json alone. InputError if it is missing or no JSON object."""
    return read_json(epath.Path(folder) / CONFIG_FILE, "a checkpoint folder needs it")


def read_json(path: epath.Path, why: str) -> dict[str, Any]:
    """A JSON object; InputError names the file, and says `why` it is needed where it is missing."""
    try:
        content = json_module.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: not found; {why}") from None
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: not JSON ({error}); fetch or write it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object; fetch or write it again")
    return content


def _weight_files(folder: epath.Path, weights: str | None) -> list[epath.Path]:
    single = folder / (weights or WEIGHTS_FILE)
    if single.exists():
        return [single]
    if weights:
        raise InputError(f"{single}: not found")
    path = folder / INDEX_FILE
    index = read_json(
        path, f"{folder} holds no {WEIGHTS_FILE} either; weights must be in safetensors files"
    )
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise InputError(f"{path}: has no weight_map of tensor names to files; fetch it again")
    files = []
    for name in sorted(set(places.values())):
        if PurePath(name).name != name:
            raise InputError(f"{path}: names {name}, which is no file in this folder")
        if not (folder / name).exists():
            raise InputError(f"{path}: names {name}, which is not there; fetch that file")
        files.append(folder / name)
    return files


def _open(files: Sequence[epath.Path]) -> dict[str, StoredTensor]:
    """Every tensor in the files by name."""
    stored: dict[str, StoredTensor] = {}
    for path in files:
        for tensor in read_header(path, keys.SKIPPED_SUFFIXES):
            if tensor.name in stored:
                raise InputError(f"{path}: holds {tensor.name}, which another shard holds too")
            stored[tensor.name] = tensor
    return stored


def _shapes(config: VideoLMMConfig) -> dict[str, tuple[int, ...]]:
    _, shapes = abstract_model(config)
    return {path: leaf.shape for path, leaf in keys.flat_paths(shapes)}


def _check_tensors(
    folder: epath.Path,
    stored: Mapping[str, StoredTensor],
    wanted: Mapping[str, tuple[int, ...]],
    naming: keys.Naming,
) -> None:
    shapes = {
        name: shape
        for path, ours in wanted.items()
        for name, shape in keys.their_tensors(path, ours, naming)
    }
    faults = {
        "missing": [name for name in shapes if name not in stored],
        "unexpected": [name for name in stored if name not in shapes],
        "of another shape": [
            f"{name} {list(stored[name].shape)} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in stored and stored[name].shape != shape
        ],
    }
    if any(faults.values()):
        raise KeysDiffer(folder, faults)


def _listed(fault: str, names: Sequence[str]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)} {fault}: {', '.join(names[:LISTED])}{more}"


def _common_dtype(tensors: Sequence[StoredTensor]) -> np.dtype:
    for tensor in tensors:
        if tensor.dtype != tensors[0].dtype:
            raise InputError(
                f"{tensor.path}: {tensor.name} is stored as {_dtype_name(tensor.dtype)}, but "
                f"{tensors[0].name} as {_dtype_name(tensors[0].dtype)}; all layers must be stored "
                "alike"
            )
    return tensors[0].dtype


def _dtype_name(dtype: np.dtype) -> str:
    return {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype.name]
