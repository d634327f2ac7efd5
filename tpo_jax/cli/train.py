"""`tpo train`: pairs and reference -> checkpoint."""

import argparse
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.artefacts import check_made_from, read_manifest, write_manifest
from data_pipelines.batch_plan import BatchPlan, plan_batches
from data_pipelines.loader import load_batches
from tpo_jax.cli.hosts import all_hosts, building_together
from tpo_jax.cli.progress import stage_progress, warn
from tpo_jax.cli.rows import TrainingRows, read_rows
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings
from tpo_jax.errors import InputError
from tpo_jax.parallel.distributed import is_first_host
from tpo_jax.parallel.mesh import check_batch, host_rows, make_mesh
from tpo_jax.preference.reference import read_table
from tpo_jax.training.loop import LoopConfig, init_sharded_state, train
from tpo_jax.training.optimizer import make_optimizer, split_frozen
from tpo_jax.training.step import check_accumulate, make_train_step
from tpo_jax.training.xla_options import options_refused

# Changes time and memory, and no result but in the order of sums: recorded beside the recipe.
RUNS_WITH = ("remat", "accumulate", "xla_options", "loader_workers")

SHOWN = 5  # dropped pairs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Trains on RUN_DIR/pairs (with RUN_DIR/reference, unless by SFT alone) and writes "
        "RUN_DIR/train: Orbax checkpoints, metrics.jsonl and TensorBoard curves. Killed and run "
        "again, it goes on from the newest checkpoint and ends with the same weights."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    with all_hosts(settings):
        train_policy(settings)


def train_made_from(settings: RunConfig, training: TrainingRows, steps: int) -> dict:
    """What a training run depends on. What changes only time and memory is left out."""
    recipe = as_json(replace(settings.train, steps=steps))
    for name in ("save_every", "epochs", *RUNS_WITH, "on_nonfinite", "max_skipped"):
        del recipe[name]
    return training.made_from | {
        "loss": as_json(settings.loss),
        "train": recipe,
        "seed": settings.seed,
    }


def train_policy(settings: RunConfig) -> None:
    """Train to the end, from wherever an earlier run of the same config stopped."""
    mesh = make_mesh(settings.mesh)
    check_batch(mesh, settings.train.batch_pairs)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    check_accumulate(settings.train.batch_pairs, settings.train.accumulate, ways)
    training = read_rows(settings, "train", mesh)
    pairs = len(training.rows.pairs)
    size = settings.train.batch_pairs
    steps = settings.train.steps or max(1, settings.train.epochs * len(training.numbers) // size)
    made_from = train_made_from(settings, training, steps)
    out = settings.folder("train")
    with stage_progress("train", steps) as update:
        if is_done(out, "train", made_from):
            update(steps, "done before")
            return
        loss = settings.loss
        reference = _read_reference(settings, training) if loss.needs_reference else None
        plan = plan_batches(
            training.numbers, training.rows.buckets, steps=steps, batch=size, seed=settings.seed
        )
        loading = tell_loading(training, plan)
        optimizer = make_optimizer(settings.train, steps)
        step = make_train_step(
            training.model.graph,
            loss,
            optimizer,
            jnp.dtype(settings.compute_dtype),
            accumulate=settings.train.accumulate,
        )
        with (
            building_together(out, made_from) as partial,
            options_refused(settings.train.xla_options),
        ):
            train(
                init_sharded_state(
                    *split_frozen(training.model.params, settings.train.frozen), optimizer, mesh
                ),
                step,
                lambda start: load_batches(
                    training.rows,
                    plan,
                    start=start,
                    places=host_rows(mesh, size),
                    reference=reference,
                    workers=settings.train.loader_workers,
                ),
                partial,
                config=LoopConfig(
                    steps=steps,
                    save_every=settings.train.save_every,
                    on_nonfinite=settings.train.on_nonfinite,
                    max_skipped=settings.train.max_skipped,
                ),
                mesh=mesh,
                compute_dtype=settings.compute_dtype,
                at_reference=loss.pair_loss.at_reference if loss.needs_reference else None,
                xla_options=settings.train.xla_options,
                progress=lambda done, total, detail: update(done, detail),
                warn=warn,
            )
            runs_with = {name: getattr(settings.train, name) for name in RUNS_WITH}
            if is_first_host():
                write_manifest(
                    partial,
                    "train",
                    made_from,
                    steps=steps,
                    pairs=pairs,
                    runs_with=runs_with,
                    loading=loading,
                )


def tell_loading(training: TrainingRows, plan: BatchPlan) -> dict[str, Any]:
    """Prints what of the batches is padding and which pairs were dropped; returns the same."""
    shapes, dropped = training.rows.padding(plan), training.rows.dropped
    for shape in shapes:
        share = shape["padding"] / max(shape["tokens"], 1)
        print(
            f"{shape['steps']:,} steps of {shape['row_tokens']:,} tokens a row, {share:.1%} padding"
        )
    for name, reason in dropped[:SHOWN]:
        warn(f"pair {name} dropped: {reason}")
    if len(dropped) > SHOWN:
        warn(f"{len(dropped) - SHOWN:,} more pairs dropped; the manifest has them all")
    return {"shapes": shapes, "dropped": [{"id": name, "reason": why} for name, why in dropped]}


def _read_reference(settings: RunConfig, training: TrainingRows) -> dict[str, np.ndarray]:
    folder = settings.folder("reference")
    manifest = read_manifest(folder, "reference")
    mend = f"delete {folder} and run `tpo reference` again"
    check_made_from(folder, manifest["made_from"], training.made_from, mend)
    table = read_table(folder)
    lacking = [pair.id for pair in training.rows.pairs if pair.id not in table]
    if lacking:
        raise InputError(
            f"{folder}: has no log-probs for {len(lacking)} pairs (first: {lacking[0]}); {mend}"
        )
    return table
