"""A nested dict of arrays in an Orbax folder, written whole and read whole or a leaf at a time."""

import functools
import inspect
import math
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from tpo_jax.bucket import in_bucket
from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params

# What bounds the memory of a save: leaves in flight to disk (a larger one goes alone), and the
# pieces that a leaf is cut into on disk.
IN_FLIGHT_GIGABYTES = 2
PIECE_BYTES = 128 * 1024**2


def absolute(folder: epath.PathLike) -> epath.Path:
    """The path that Orbax wants; an address in a bucket is one already."""
    path = epath.Path(folder)
    return path if in_bucket(path) else path.absolute()


def write_tree(folder: epath.PathLike, tree: Params) -> None:
    """Writes a nested dict of arrays into a folder that is not there yet."""
    options = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=PIECE_BYTES), tree)
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(tree))
    handler = ocp.PyTreeCheckpointHandler(
        save_concurrent_gb=max(IN_FLIGHT_GIGABYTES, math.ceil(largest / 1e9)),
        # Its database pays for many small arrays. These are few and large, and stored as plain
        # files they are not written twice.
        use_ocdbt=False,
    )
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(
            absolute(folder),
            args=ocp.args.PyTreeSave(tree, save_args=options),
        )


@functools.cache
def _hush_leftovers() -> None:
    """Reads that Orbax drops beside one that failed would each print a traceback, for a while."""
    before = sys.unraisablehook

    def tell_others(unraisable: "sys.UnraisableHookArgs") -> None:
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not closed and not inspect.iscoroutine(unraisable.object):
            before(unraisable)

    sys.unraisablehook = tell_others


class OrbaxTree:
    """An Orbax folder, opened: shapes and dtypes are known, arrays are read when asked for."""

    def __init__(self, folder: epath.PathLike):
        """Raises InputError if there is no Orbax folder."""
        self._folder = absolute(folder)
        _hush_leftovers()
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            try:
                found = checkpointer.metadata(self._folder).item_metadata
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{folder}: cannot be read as an Orbax folder ({error}); make it again"
                ) from error
        if found is None:
            raise InputError(f"{folder}: holds no Orbax arrays; make it again")
        # Entries with .shape and .dtype, in the nesting that was saved.
        self.metadata: Any = found.tree

    def read(self, wanted: Any, options: Any) -> Any:
        """The leaves that are not `ocp.PLACEHOLDER` in `wanted`, as `options` says for each."""
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            try:
                return checkpointer.restore(
                    self._folder, args=ocp.args.PyTreeRestore(item=wanted, restore_args=options)
                )
            except Exception as error:  # Orbax raises a bare Exception for a damaged array
                reason = " ".join(str(error.__cause__ or error).split())[:200]
                raise InputError(
                    f"{self._folder}: damaged ({reason}); make it again, or use an older copy"
                ) from error

    def read_params(self, like: Params) -> Params:
        """All parameters, in the dtypes and shards of `like` (shapes with shardings).

        A leaf of `like` that is larger than what is stored is filled up with zeros, a smaller one
        is cut: so the padding of a vocabulary changes with the mesh.
        """

        def how(leaf: jax.ShapeDtypeStruct) -> ocp.ArrayRestoreArgs:
            return ocp.ArrayRestoreArgs(
                sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype, strict=False
            )

        return self.read(jax.tree.map(lambda _: 0, like), jax.tree.map(how, like))

    def leaves(self, below: str = "") -> Params:
        """A nested dict of the parameters (under one key, if given); none is read yet."""
        part = self.metadata[below] if below else self.metadata

        def leaf(keys: tuple[Any, ...], entry: Any) -> StoredLeaf:
            names = tuple(key.key for key in keys)
            return StoredLeaf(self, (below, *names) if below else names, entry)

        return jax.tree_util.tree_map_with_path(leaf, part)


class StoredLeaf:
    """One array of an Orbax folder; numpy reads it when it is used as an array."""

    def __init__(self, tree: OrbaxTree, names: tuple[str, ...], entry: Any):
        self._tree = tree
        self._names = names
        self.shape: tuple[int, ...] = tuple(entry.shape)
        self.dtype = np.dtype(entry.dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The array on this host."""
        wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, self._tree.metadata)
        options = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), self._tree.metadata
        )
        part = wanted
        for name in self._names[:-1]:
            part = part[name]
        part[self._names[-1]] = 0
        found = self._tree.read(wanted, options)
        for name in self._names:
            found = found[name]
        return np.asarray(found, dtype=dtype)
