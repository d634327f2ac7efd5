"""Read a checkpoint folder in the authors' format."""

import hashlib
import json as json_module
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from tpo_jax.errors import InputError
from tpo_jax.interop import keys
from tpo_jax.models.presets import config_from_json
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
STORED_DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
STORED_DTYPES["BF16"] = np.dtype(jnp.bfloat16)
LISTED = 3


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
      config: the model's settings; vocabulary rows are those of the stored embedding.
      params: nested plain dict of fp32 numpy arrays, as `abstract_model(config)` has them.
      json: the content of config.json, to be handed on when the model is written again.
      fingerprint: 16 hex digits over config.json and every tensor as stored. How the tensors are
        spread over files does not count.
    """

    config: VideoLMMConfig
    params: Params
    json: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class _StoredTensor:
    file: Any
    shape: tuple[int, ...]
    dtype: str


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads config.json and model.safetensors, or the shards that its index names.

    Raises:
      InputError: a file is missing or broken, config.json asks for what is not implemented, or the
        tensors are not exactly those of the model that it describes. Names the file and the mend.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of a checkpoint")
    json = read_config(folder)
    weights = _weight_files(folder)
    with ExitStack() as opened:
        stored = _open(weights, opened)
        embedding = stored.get(keys.their_name("language/embed/embedding"))
        try:
            rows = embedding.shape[0] if embedding and embedding.shape else None
            config = config_from_json(json, vocab_rows=rows)
        except InputError as error:
            raise InputError(f"{folder / CONFIG_FILE}: {error}") from error
        _, shapes = abstract_model(config)
        wanted = {path: leaf.shape for path, leaf in keys.flat_paths(shapes)}
        _check_tensors(folder, stored, wanted)
        params, digest = _read_tensors(stored, wanted)
    digest.update(json_module.dumps(json, sort_keys=True).encode())
    return Checkpoint(config=config, params=params, json=json, fingerprint=digest.hexdigest()[:16])


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a checkpoint's config.json alone. InputError if it is missing or no JSON object."""
    return _read_json(folder / CONFIG_FILE, "a checkpoint folder needs it")


def _read_json(path: Path, why: str) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: not found; {why}")
    try:
        content = json_module.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); fetch or write it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object; fetch or write it again")
    return content


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    path = folder / INDEX_FILE
    index = _read_json(
        path, f"{folder} holds no {WEIGHTS_FILE} either; weights must be in safetensors files"
    )
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise InputError(f"{path}: has no weight_map of tensor names to files; fetch it again")
    files = [folder / name for name in sorted(set(places.values()))]
    for file in files:
        if not file.is_file():
            raise InputError(f"{path}: names {file.name}, which is not there; fetch that file")
    return files


def _open(files: Sequence[Path], opened: ExitStack) -> dict[str, _StoredTensor]:
    """Every tensor in the files by name; nothing but headers is read."""
    stored: dict[str, _StoredTensor] = {}
    for path in files:
        try:
            file = opened.enter_context(safe_open(path, "numpy"))
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: not a whole safetensors file ({error}); fetch it again"
            ) from error
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if name in stored:
                raise InputError(f"{path}: holds {name}, which another shard holds too")
            if name.endswith(keys.SKIPPED_SUFFIXES):
                continue
            tensor = file.get_slice(name)
            dtype = tensor.get_dtype()
            if dtype not in STORED_DTYPES:
                raise InputError(
                    f"{path}: {name} is stored as {dtype}; only {', '.join(STORED_DTYPES)} are read"
                )
            stored[name] = _StoredTensor(file=file, shape=tuple(tensor.get_shape()), dtype=dtype)
    return stored


def _check_tensors(
    folder: Path, stored: Mapping[str, _StoredTensor], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    shapes = dict(
        tensor for path, shape in wanted.items() for tensor in keys.their_tensors(path, shape)
    )
    wrong_shape = [
        f"{name} {list(stored[name].shape)} instead of {list(shape)}"
        for name, shape in shapes.items()
        if name in stored and stored[name].shape != shape
    ]
    faults = [
        _listed("missing", [name for name in shapes if name not in stored]),
        _listed("unexpected", [name for name in stored if name not in shapes]),
        _listed("of another shape", wrong_shape),
    ]
    if any(faults):
        raise InputError(
            f"{folder}: its tensors are not those that {CONFIG_FILE} describes: "
            f"{'; '.join(filter(None, faults))}"
        )


def _listed(fault: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)} {fault}: {', '.join(names[:LISTED])}{more}"


def _read_tensors(
    stored: Mapping[str, _StoredTensor], wanted: Mapping[str, tuple[int, ...]]
) -> tuple[Params, Any]:
    digest = hashlib.sha256()
    arrays = {}
    for path, shape in sorted(wanted.items()):
        array = np.empty(shape, np.float32)
        for layer, (name, _) in enumerate(keys.their_tensors(path, shape)):
            tensor = stored[name].file.get_tensor(name)
            digest.update(f"{name} {stored[name].dtype} {tensor.shape}".encode())
            digest.update(tensor.reshape(-1).view(np.uint8).data)
            target = array[layer] if keys.is_stacked(path) else array
            target[...] = keys.to_ours(path, tensor)
        arrays[tuple(path.split("/"))] = array
    return nnx.traversals.unflatten_mapping(arrays), digest
