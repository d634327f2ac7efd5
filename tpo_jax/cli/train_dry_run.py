"""`tpo train --dry-run`: what a run would do and keep on its disk; nothing is written."""

import shutil

import jax

from data_pipelines.artefacts import in_bucket
from tpo_jax.cli.doctor_machine import existing_folder
from tpo_jax.cli.train_inputs import TrainInputs
from tpo_jax.training.checkpoints import SaveConfig
from tpo_jax.training.optimizer import make_optimizer, split_frozen

GIGABYTE = 10**9


def dry_run(inputs: TrainInputs) -> None:
    """Print steps, checkpoints and disk. Raises InputError where training would, before a step."""
    train, steps = inputs.settings.train, inputs.steps
    inputs.read_reference()  # it must have every pair, and be of this model
    pairs = len(inputs.training.numbers)
    print(
        f"{steps:,} steps of {train.batch_pairs} pairs, {steps * train.batch_pairs / pairs:.3g} "
        f"times each of {pairs:,}"
    )
    size = checkpoint_bytes(inputs) / GIGABYTE
    count = most_at_a_time(train, steps)
    folder = inputs.settings.folder("train")
    room = f"{folder} is a bucket"
    if not in_bucket(folder):
        place = existing_folder(str(folder))
        free = shutil.disk_usage(place).free / GIGABYTE
        room = f"{free:,.3g} GB free at {place}{', too little' if free < count * size else ''}"
    print(
        f"a checkpoint every {train.save_every:,} steps, {size:,.2g} GB each; up to {count:,} at a "
        f"time are {count * size:,.2g} GB: {room}"
    )
    print("memory, time and chip-hours on a slice: `tpo plan` with the same config")


def checkpoint_bytes(inputs: TrainInputs) -> int:
    """Of one checkpoint: all parameters, and the optimizer's state of those that are trained."""
    params, train = inputs.training.model.params, inputs.settings.train
    trained, _ = split_frozen(params, train.frozen)
    state = jax.eval_shape(make_optimizer(train, inputs.steps).init, trained)
    leaves = jax.tree.leaves((params, state))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def most_at_a_time(config: SaveConfig, steps: int) -> int:
    """How many checkpoints may lie there at once: those that are kept, and one being written."""
    every = steps // config.keep_every if config.keep_every else 0
    best = 1 if config.keep_best_by else 0
    return min(config.keep_last + every + best + 1, -(-steps // config.save_every))
