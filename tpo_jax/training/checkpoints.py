"""Orbax checkpoints of the training state, with digests of their files.

The digests are written into a checkpoint before it gets its final name: one that has its name has
them. They are checked before anything is restored.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from tpo_jax.errors import InputError
from tpo_jax.interop.orbax_tree import OrbaxTree
from tpo_jax.models.video_lmm import Params
from tpo_jax.parallel.distributed import is_first_host, wait_for_all
from tpo_jax.training.digests import find_fault, has_digests, write_digests
from tpo_jax.training.step import TrainState

STEP_PREFIX = "step"
# When a save began and ended; Orbax writes the latter after the folder has its name.
TIMES_FILE = "_CHECKPOINT_METADATA"
DAMAGED = ".damaged"


class Checkpoints:
    """Saves in the background, keeps the newest two, restores onto the shardings asked for.

    Opening a folder checks its newest checkpoint. One that is damaged is renamed to `*.damaged`,
    `warn` is told, and the one before it is the newest.

    Raises:
      InputError: no checkpoint of the folder is whole, though there are some.
    """

    def __init__(
        self, folder: Path, *, save_every: int, warn: Callable[[str], None] = warnings.warn
    ):
        self._folder = folder.absolute()
        self._saving = 0
        if is_first_host():
            set_damaged_aside(self._folder, warn)
        wait_for_all(f"{folder} holds whole checkpoints")
        options = ocp.CheckpointManagerOptions(
            save_interval_steps=save_every,
            max_to_keep=2,
            step_prefix=STEP_PREFIX,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

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
        if self.latest == steps_done or not (force or self._manager.should_save(steps_done)):
            return
        self._manager.wait_until_finished()  # the one before may still be written
        self._saving = steps_done
        self._manager.save(steps_done, args=ocp.args.StandardSave(state), force=force)

    def restore(self, like: TrainState) -> TrainState:
        """The newest state, laid out as `like` (arrays, or shapes with shardings)."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(self.latest, args=ocp.args.StandardRestore(abstract))

    def _write_digests(self) -> None:
        """Orbax calls this when all files of a save are written and only its name is not."""
        if is_first_host():
            folder = step_folder(self._folder, self._saving)
            under_way = folder.with_name(folder.name + ocp.utils.TMP_DIR_SUFFIX)
            write_digests(under_way, but_not=[TIMES_FILE])


def step_folder(folder: Path, steps_done: int) -> Path:
    """Where the checkpoint after so many steps lies."""
    return folder / f"{STEP_PREFIX}_{steps_done}"


def saved_steps(folder: Path) -> list[int]:
    """Steps done in each checkpoint of a folder, damaged or not, newest first."""
    if not folder.is_dir():
        return []
    found = (re.fullmatch(rf"{STEP_PREFIX}_(\d+)", path.name) for path in folder.iterdir())
    return sorted((int(match[1]) for match in found if match), reverse=True)


def newest_whole(folder: Path) -> tuple[int | None, dict[int, str]]:
    """Steps done in the newest whole checkpoint, and what is wrong with each newer one.

    Where no checkpoint has digests, a version that wrote none has made them: the newest is taken
    as it is.
    """
    steps = saved_steps(folder)
    if not any(has_digests(step_folder(folder, step)) for step in steps):
        return (steps[0] if steps else None), {}
    faults: dict[int, str] = {}
    for step in steps:
        fault = find_fault(step_folder(folder, step))
        if fault is None:
            return step, faults
        faults[step] = fault
    return None, faults


def set_damaged_aside(folder: Path, warn: Callable[[str], None]) -> None:
    """Renames checkpoints that are newer than the newest whole one to `*.damaged`.

    Raises:
      InputError: none is whole; nothing is renamed then.
    """
    whole, faults = newest_whole(folder)
    if faults and whole is None:
        newest = step_folder(folder, max(faults))
        raise InputError(
            f"{newest}: damaged ({faults[max(faults)]}), and no other checkpoint is whole; delete "
            f"{folder} to train from the first step"
        )
    for step, fault in faults.items():
        damaged = step_folder(folder, step)
        aside, number = damaged.with_name(damaged.name + DAMAGED), 2
        while aside.exists():
            aside, number = damaged.with_name(f"{damaged.name}.{number}{DAMAGED}"), number + 1
        damaged.rename(aside)
        warn(
            f"{damaged}: damaged ({fault}); renamed to {aside.name}, going on from the checkpoint "
            f"of step {whole}"
        )


def stored_params(folder: Path) -> Params:
    """All parameters of the newest checkpoint in a folder, each read when it is used as an array.

    Raises:
      InputError: there is no checkpoint, or the newest is damaged.
    """
    step, faults = newest_whole(folder)
    for damaged, fault in faults.items():
        train = folder.parent
        raise InputError(
            f"{step_folder(folder, damaged)}: damaged ({fault}); rename {train} to "
            f"{train.name}.partial and run `tpo train` again, which goes on from the one before"
        )
    if step is None:
        raise InputError(f"{folder}: holds no checkpoint; run `tpo train` first")
    tree = OrbaxTree(step_folder(folder, step) / ocp.checkpoint_manager.DEFAULT_ITEM_NAME)
    return {**tree.leaves("trained"), **tree.leaves("frozen")}


def read_params(folder: Path) -> Params:
    """All parameters of the newest checkpoint in a folder, as fp32 arrays on this host.

    Raises:
      InputError: there is no checkpoint.
    """
    return jax.tree.map(np.asarray, stored_params(folder))
