"""The imported form of a checkpoint: config.json as it was, and Orbax parameters as stored.

A host of a pod reads only its own shards of it, whatever the mesh, where a PyTorch file must be
read whole.
"""

import json as json_module
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from tpo_jax.errors import InputError
from tpo_jax.interop import keys
from tpo_jax.interop.orbax_tree import OrbaxTree, write_tree
from tpo_jax.interop.reader import (
    CONFIG_FILE,
    Checkpoint,
    CheckpointFiles,
    ParameterStream,
    Progress,
    read_json,
)
from tpo_jax.models.checkpoint_config import model_config
from tpo_jax.models.video_lmm import Params, abstract_model
from tpo_jax.parallel.rules import pad_vocabulary, param_shardings

PARAMS_FOLDER = "params"
NOTES_FILE = "checkpoint.json"
# Parameters are written in parts, so that no more of them must be in memory at once.
PART_BYTES = 2 * 10**9


def is_imported(folder: epath.PathLike) -> bool:
    """Whether a checkpoint folder is in the imported form."""
    return (epath.Path(folder) / PARAMS_FOLDER).is_dir()


def write_imported(
    folder: epath.PathLike, files: CheckpointFiles, *, mesh: Mesh, progress: Progress | None = None
) -> str:
    """Copies a PyTorch checkpoint into the imported form, as it is stored; returns its fingerprint.

    Raises:
      InputError: layers are stored in different dtypes, or a file has become shorter.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CONFIG_FILE, files.json)
    leaves = ParameterStream(files, dtype=None, mesh=mesh, progress=progress)
    assert not leaves.config.language.padding_rows
    part: dict[tuple[str, ...], Any] = {}
    number, size = 0, 0
    # A part is written, and let go, before the next parameter is read: one of them may be large.
    # (zip would hold on to the last one.)
    following = iter([*list(leaves.sizes.values())[1:], PART_BYTES])
    for path, leaf in leaves:
        part[tuple(path.split("/"))] = leaf
        size += leaf.nbytes
        del leaf
        if size + next(following) > PART_BYTES:
            write_tree(folder / PARAMS_FOLDER / f"part-{number:05d}", _nest(part))
            part.clear()
            number, size = number + 1, 0
    notes = {"naming": files.naming.name, "fingerprint": leaves.fingerprint}
    _write_json(folder / NOTES_FILE, notes)
    return leaves.fingerprint


def open_imported(folder: epath.PathLike) -> Checkpoint:
    """An imported checkpoint whose parameters are read when they are used as arrays.

    Raises:
      InputError: the folder is damaged, or its parameters are not those of its config.json.
    """
    checkpoint, _ = _open(epath.Path(folder))
    return checkpoint


def read_imported(
    folder: epath.PathLike, *, dtype: Any = np.float32, mesh: Mesh | None = None
) -> Checkpoint:
    """An imported checkpoint in memory; arguments and errors as `reader.read_checkpoint`.

    Without a mesh the parameters go to the first device.
    """
    stored, trees = _open(epath.Path(folder))
    config = stored.config if mesh is None else pad_vocabulary(stored.config, mesh)
    _, shapes = abstract_model(config)
    one = SingleDeviceSharding(jax.devices()[0])
    shardings = (
        jax.tree.map(lambda _: one, shapes) if mesh is None else param_shardings(mesh, shapes)
    )
    wanted = dict(keys.flat_paths(shapes))
    places = dict(keys.flat_paths(shardings))
    arrays: dict[tuple[str, ...], Any] = {}
    for tree in trees:
        like = {
            tuple(path.split("/")): jax.ShapeDtypeStruct(
                wanted[path].shape, dtype or leaf.dtype, sharding=places[path]
            )
            for path, leaf in keys.flat_paths(tree.leaves())
        }
        for path, array in keys.flat_paths(tree.read_params(_nest(like))):
            arrays[tuple(path.split("/"))] = array
    return replace(stored, config=config, params=_nest(arrays))


def _open(folder: epath.Path) -> tuple[Checkpoint, list[OrbaxTree]]:
    json = read_json(folder / CONFIG_FILE, "an imported checkpoint needs it")
    notes = read_json(folder / NOTES_FILE, "import the checkpoint again")
    trees = [OrbaxTree(part) for part in sorted((folder / PARAMS_FOLDER).iterdir())]
    leaves = {path: leaf for tree in trees for path, leaf in keys.flat_paths(tree.leaves())}
    found = {path: leaf.shape for path, leaf in leaves.items()}
    try:
        rows = found.get("language/embed/embedding", (None,))[0]
        config = model_config(json, vocab_rows=rows)
        naming = keys.NAMINGS[notes["naming"]]
        fingerprint = str(notes["fingerprint"])
    except KeyError as error:
        raise InputError(
            f"{folder / NOTES_FILE}: not written by `tpo import` ({error}); import again"
        ) from error
    except InputError as error:
        raise InputError(f"{folder / CONFIG_FILE}: {error}") from error
    _, shapes = abstract_model(config)
    wanted = {path: leaf.shape for path, leaf in keys.flat_paths(shapes)}
    if found != wanted:
        path = sorted(p for p in found | wanted if found.get(p) != wanted.get(p))[0]
        raise InputError(
            f"{folder / PARAMS_FOLDER}: parameter {path} has shape {found.get(path)}, "
            f"{CONFIG_FILE} describes {wanted.get(path)}; import the checkpoint again"
        )
    params = _nest({tuple(path.split("/")): leaf for path, leaf in leaves.items()})
    checkpoint = Checkpoint(
        config=config, params=params, json=json, naming=naming, fingerprint=fingerprint
    )
    return checkpoint, trees


def _nest(flat: Mapping[tuple[str, ...], Any]) -> Params:
    return nnx.traversals.unflatten_mapping(flat)


def _write_json(path: epath.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json_module.dumps(content, indent=2, sort_keys=True) + "\n")
