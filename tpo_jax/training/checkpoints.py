"""Orbax checkpoints of the training state."""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from tpo_jax.errors import InputError
from tpo_jax.interop.orbax_tree import OrbaxTree
from tpo_jax.models.video_lmm import Params
from tpo_jax.training.step import TrainState

STEP_PREFIX = "step"


class Checkpoints:
    """Saves in the background, keeps the newest two, restores onto the shardings asked for."""

    def __init__(self, folder: Path, *, save_every: int):
        options = ocp.CheckpointManagerOptions(
            save_interval_steps=save_every, max_to_keep=2, step_prefix=STEP_PREFIX
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()  # waits for a save that is under way

    @property
    def latest(self) -> int | None:
        """Steps done in the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, steps_done: int, state: TrainState, *, force: bool = False) -> None:
        """Save if `steps_done` is due (or `force`) and not saved yet."""
        if self.latest != steps_done:
            self._manager.save(steps_done, args=ocp.args.StandardSave(state), force=force)

    def restore(self, like: TrainState) -> TrainState:
        """The newest state, laid out as `like` (arrays, or shapes with shardings)."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(self.latest, args=ocp.args.StandardRestore(abstract))


def stored_params(folder: Path) -> Params:
    """All parameters of the newest checkpoint in a folder, each read when it is used as an array.

    Raises:
      InputError: there is no checkpoint.
    """
    with Checkpoints(folder, save_every=1) as checkpoints:
        step = checkpoints.latest
    if step is None:
        raise InputError(f"{folder}: holds no checkpoint; run `tpo train` first")
    tree = OrbaxTree(folder / f"{STEP_PREFIX}_{step}" / ocp.checkpoint_manager.DEFAULT_ITEM_NAME)
    return {**tree.leaves("trained"), **tree.leaves("frozen")}


def read_params(folder: Path) -> Params:
    """All parameters of the newest checkpoint in a folder, as fp32 arrays on this host.

    Raises:
      InputError: there is no checkpoint.
    """
    return jax.tree.map(np.asarray, stored_params(folder))
