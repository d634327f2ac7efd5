"""Orbax checkpoints of the training state."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params
from tpo_jax.training.step import TrainState


class Checkpoints:
    """Saves in the background, keeps the newest two, restores onto the shardings asked for."""

    def __init__(self, folder: Path, *, save_every: int):
        options = ocp.CheckpointManagerOptions(
            save_interval_steps=save_every, max_to_keep=2, step_prefix="step"
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

    def restore_params(self) -> Params:
        """All parameters of the newest state, in the layout they were saved in."""
        state = self._manager.restore(self.latest, args=ocp.args.StandardRestore())
        return {**state["trained"], **state["frozen"]}


def read_params(folder: Path) -> Params:
    """All parameters of the newest checkpoint in a folder, as fp32 arrays on this host.

    Raises:
      InputError: there is no checkpoint.
    """
    with Checkpoints(folder, save_every=1) as checkpoints:
        if checkpoints.latest is None:
            raise InputError(f"{folder}: holds no checkpoint; run `tpo train` first")
        return checkpoints.restore_params()
