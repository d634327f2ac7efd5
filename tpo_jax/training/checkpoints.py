"""Orbax checkpoints of the training state, with digests of their files.

The digests are written into a checkpoint before it gets its final name: one that has its name has
them. They are checked before anything is restored. A folder in a bucket has its name from the
beginning: there Orbax writes a mark into it instead, and what has no mark is no checkpoint.
"""

import json
import logging
import math
import re
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    EveryNSteps,
    LatestN,
    PreservationPolicy,
)

from tpo_jax.bucket import in_bucket, names_in, path_at
from tpo_jax.disk import fault_of_disk
from tpo_jax.errors import InputError, did_you_mean
from tpo_jax.interop.orbax_tree import OrbaxTree
from tpo_jax.models.video_lmm import Params
from tpo_jax.parallel.distributed import is_first_host, wait_for_all
from tpo_jax.training.digests import find_fault, has_digests, write_digests
from tpo_jax.training.step import TrainState

STEP_PREFIX = "step"
# When a save began and ended; Orbax writes the latter after the folder has its name.
TIMES_FILE = "_CHECKPOINT_METADATA"
SAVED_FILE = "commit_success.txt"  # the mark in a bucket
DAMAGED = ".damaged"
METRICS_FILE = "metrics/metrics"  # in a checkpoint that can be the best


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When to save, and what of it to keep: every checkpoint that one of these asks for.

    `keep_last` are the newest; with `keep_every`, a multiple of `save_every`, those of every so
    many steps; with `keep_best_by` the best by that field of the metrics of its step. Of a loss
    the lowest is best, of anything else the highest.
    """

    save_every: int = 50
    keep_last: int = 2
    keep_every: int | None = None
    keep_best_by: str | None = None

    def __post_init__(self) -> None:
        """ValueError where checkpoints would be kept that are never made, or none is."""
        if self.keep_last < 1:
            raise ValueError(f"keep_last is {self.keep_last}; it must be 1 or more")
        if self.keep_every is not None and (
            self.keep_every < 1 or self.keep_every % self.save_every
        ):
            raise ValueError(
                f"keep_every is {self.keep_every}; it must be a multiple of save_every="
                f"{self.save_every}"
            )


class Checkpoints:
    """Saves in the background, keeps what is asked for, restores onto the shardings asked for.

    Opening a folder checks its newest checkpoint. One that is damaged is renamed to `*.damaged`,
    `warn` is told, and the one before it is the newest. `before_save` is called before each save.

    Raises:
      InputError: no checkpoint of the folder is whole, though there are some; or, from the call
        after it too and at the end, a save found the disk full or the folder gone. The checkpoints
        before it are whole then.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        *,
        config: SaveConfig,
        warn: Callable[[str], None] = warnings.warn,
        before_save: Callable[[], None] = lambda: None,
    ):
        path = path_at(folder)
        self._folder = path if in_bucket(path) else path.absolute()
        self._before_save = before_save
        self._saving = 0
        self._bytes = 0
        if is_first_host():
            set_damaged_aside(self._folder, warn)
        wait_for_all(f"{folder} holds whole checkpoints")
        self._best_by = config.keep_best_by
        kept: list[PreservationPolicy] = [LatestN(n=config.keep_last)]
        if config.keep_every is not None:
            kept.append(EveryNSteps(interval_steps=config.keep_every))
        merit = partial(_merit, name=config.keep_best_by) if config.keep_best_by else None
        if merit is not None:
            kept.append(BestN(get_metric_fn=merit, n=1, keep_checkpoints_without_metrics=False))
        options = ocp.CheckpointManagerOptions(
            save_interval_steps=config.save_every,
            preservation_policy=AnyPreservationPolicy(kept),
            best_fn=merit,
            step_prefix=STEP_PREFIX,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        logging.getLogger("absl").addFilter(self._may_be_logged)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with self._disk_may_refuse():
                self._manager.close()  # waits for a save that is under way
        finally:
            logging.getLogger("absl").removeFilter(self._may_be_logged)

    @property
    def latest(self) -> int | None:
        """Steps done in the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self,
        steps_done: int,
        state: TrainState,
        metrics: Mapping[str, float],
        *,
        force: bool = False,
    ) -> None:
        """Save if `steps_done` is due (or `force`) and not saved yet; `metrics` are of that step.

        Raises:
          InputError: the best is to be kept by a field that they lack.
        """
        if self.latest == steps_done or not (force or self._manager.should_save(steps_done)):
            return
        with self._disk_may_refuse():
            self._manager.wait_until_finished()  # the one before may still be written
            # Orbax would make it, with nothing else of the run. A bucket has no empty folders.
            if not in_bucket(self._folder) and not self._folder.is_dir():
                raise InputError(f"{self._folder}: is gone; bring it back, or train anew")
            self._saving = steps_done
            self._bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            self._before_save()
            self._manager.save(
                steps_done,
                args=ocp.args.StandardSave(state),
                metrics=self._told(metrics),
                force=force,
            )

    def restore(self, like: TrainState) -> TrainState:
        """The newest state, laid out as `like` (arrays, or shapes with shardings).

        A mesh pads the vocabulary to what divides over it, so another may want more or fewer rows:
        zeros are added, or rows cut off, at the end. Nothing is read of either.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        arguments = ocp.args.StandardRestore(abstract, strict=False)
        return self._manager.restore(self.latest, args=arguments)

    def _told(self, metrics: Mapping[str, float]) -> dict[str, float] | None:
        name = self._best_by
        if name is None:
            return None
        if name not in metrics:
            raise InputError(
                f"config.train.keep_best_by={name} is no field of this run's metrics"
                f"{did_you_mean(name, metrics)}"
            )
        return {name: metrics[name]}

    @contextmanager
    def _disk_may_refuse(self) -> Iterator[None]:
        """Orbax tells by errors of many kinds that a save failed."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            fault = fault_of_disk(error, self._folder, needed_bytes=self._bytes)
            if fault is None:
                raise
            raise InputError(f"checkpoint of step {self._saving}: {fault}") from error

    def _may_be_logged(self, record: logging.LogRecord) -> bool:
        """Not what the disk refused: each of Orbax's threads would log it at length, and
        `_disk_may_refuse` says it in a line.
        """
        error = record.exc_info[1] if record.exc_info else None
        return error is None or fault_of_disk(error, self._folder) is None

    def _write_digests(self) -> None:
        """Orbax calls this when all files of a save are written and its name, or mark, is not."""
        if is_first_host():
            folder = step_folder(self._folder, self._saving)
            if not in_bucket(folder):
                folder = folder.with_name(folder.name + ocp.utils.TMP_DIR_SUFFIX)
            write_digests(folder, but_not=[TIMES_FILE])


def step_folder(folder: epath.PathLike, steps_done: int) -> Path:
    """Where the checkpoint after so many steps lies."""
    return path_at(folder) / f"{STEP_PREFIX}_{steps_done}"


def saved_steps(folder: epath.PathLike) -> list[int]:
    """Steps done in each checkpoint of a folder, damaged or not, newest first."""
    steps = _begun_steps(folder)
    if not in_bucket(folder):
        return steps
    return [step for step in steps if SAVED_FILE in names_in(step_folder(folder, step))]


def _begun_steps(folder: epath.PathLike) -> list[int]:
    """The same, in a bucket with those whose save did not come to its end."""
    found = (re.fullmatch(rf"{STEP_PREFIX}_(\d+)", name) for name in names_in(folder))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def newest_whole(folder: epath.PathLike) -> tuple[int | None, dict[int, str]]:
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


def set_damaged_aside(folder: epath.PathLike, warn: Callable[[str], None]) -> None:
    """Renames checkpoints that are newer than the newest whole one to `*.damaged`, and older ones
    whose metrics cannot be read. In a bucket saves that did not come to their end are named too.

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
    for step, fault in (faults | _unreadable_metrics(folder, faults)).items():
        damaged = step_folder(folder, step)
        aside, number = damaged.with_name(damaged.name + DAMAGED), 2
        while aside.exists():
            aside, number = damaged.with_name(f"{damaged.name}.{number}{DAMAGED}"), number + 1
        damaged.rename(aside)
        warn(
            f"{damaged}: damaged ({fault}); renamed to {aside.name}, going on from the checkpoint "
            f"of step {whole}"
        )
    going_on = f"going on from the checkpoint of step {whole}" if whole else "beginning anew"
    saved = saved_steps(folder)
    for step in _begun_steps(folder):
        if step > (whole or 0) and step not in saved:
            begun = step_folder(folder, step)
            warn(f"{begun}: its save did not come to its end; left out, {going_on}")


def _unreadable_metrics(folder: epath.PathLike, but_not: Container[int]) -> dict[int, str]:
    """What is wrong with older checkpoints that Orbax would stumble over: it reads all metrics."""
    found = {}
    for step in saved_steps(folder):
        try:
            if step not in but_not:
                _stored_metrics(step_folder(folder, step))
        except (OSError, ValueError, TypeError) as error:
            found[step] = f"{METRICS_FILE} cannot be read ({type(error).__name__})"
    return found


def _merit(metrics: Mapping[str, float], name: str) -> float:
    """The higher the better; of a checkpoint that was saved with another field, the lowest."""
    value = metrics.get(name, math.nan)
    if not math.isfinite(value):
        return -math.inf
    return -value if name.endswith("loss") else value


def _stored_metrics(folder: Path) -> dict[str, float]:
    """The one field by which a checkpoint is compared; none if it was not saved for that."""
    path = folder / METRICS_FILE
    return {**json.loads(path.read_text("utf-8"))} if path.exists() else {}


def best_step(folder: epath.PathLike) -> int:
    """Steps done in the best checkpoint, by the field that the newest has; of equals the newest.

    Raises:
      InputError: none has any.
    """
    found = {step: _stored_metrics(step_folder(folder, step)) for step in saved_steps(folder)}
    names = [name for metrics in found.values() for name in metrics]
    if not names:
        raise InputError(
            f"{folder}: no checkpoint tells how good it is; train with config.train.keep_best_by, "
            "or name a step"
        )
    return max(found, key=lambda step: (_merit(found[step], names[0]), step))


def check_step(folder: epath.PathLike, step: int) -> None:
    """Raises InputError where there is no whole checkpoint of so many steps."""
    steps = saved_steps(folder)
    if step not in steps:
        known = ", ".join(map(str, sorted(steps))) or "none"
        raise InputError(f"{folder}: has no checkpoint of step {step}; there are: {known}")
    signed = any(has_digests(step_folder(folder, one)) for one in steps)
    if signed and (fault := find_fault(step_folder(folder, step))) is not None:
        raise InputError(f"{step_folder(folder, step)}: damaged ({fault}); name another step")


def stored_params(folder: epath.PathLike, step: int | None = None) -> Params:
    """All parameters of a checkpoint in a folder, each read when it is used as an array.

    Args:
      folder: of the checkpoints.
      step: steps done in it; None means the newest.

    Raises:
      InputError: there is no such checkpoint, or it is damaged.
    """
    if step is None:
        step = _newest_to_read(folder)
    else:
        check_step(folder, step)
    tree = OrbaxTree(step_folder(folder, step) / ocp.checkpoint_manager.DEFAULT_ITEM_NAME)
    return {**tree.leaves("trained"), **tree.leaves("frozen")}


def _newest_to_read(folder: epath.PathLike) -> int:
    """InputError: there is no checkpoint, or the newest is damaged."""
    step, faults = newest_whole(folder)
    for damaged, fault in faults.items():
        train = path_at(folder).parent
        mend = f"rename {train} to {train.name}.partial"
        if in_bucket(folder):
            mend = f"write a file UNFINISHED into {train}"
        raise InputError(
            f"{step_folder(folder, damaged)}: damaged ({fault}); {mend} and run `tpo train` again, "
            "which goes on from the one before"
        )
    if step is None:
        raise InputError(f"{folder}: holds no checkpoint; run `tpo train` first")
    return step


def read_params(folder: epath.PathLike) -> Params:
    """All parameters of the newest checkpoint in a folder, as fp32 arrays on this host.

    Raises:
      InputError: there is no checkpoint.
    """
    return jax.tree.map(np.asarray, stored_params(folder))
