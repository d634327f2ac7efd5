"""`tpo train`: pairs and reference -> checkpoint."""

import argparse
from dataclasses import fields
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from data_pipelines.artefacts import write_manifest
from data_pipelines.batch_plan import BatchPlan
from data_pipelines.loader import load_batches
from tpo_jax.bucket import in_bucket
from tpo_jax.cli.debug_batch import debug_batch
from tpo_jax.cli.hosts import all_hosts, building_together
from tpo_jax.cli.progress import stage_progress, warn
from tpo_jax.cli.rows import TrainingRows
from tpo_jax.cli.settings import RunConfig, is_done, read_settings
from tpo_jax.cli.train_dry_run import dry_run
from tpo_jax.cli.train_inputs import RUNS_WITH, read_inputs
from tpo_jax.parallel.distributed import is_first_host
from tpo_jax.parallel.mesh import host_rows
from tpo_jax.planning.utilisation import Utilisation
from tpo_jax.termination import put_off
from tpo_jax.training.boards import import_wandb
from tpo_jax.training.loop import LoopConfig, init_sharded_state, train
from tpo_jax.training.optimizer import make_optimizer, split_frozen
from tpo_jax.training.run_log import read_metrics
from tpo_jax.training.step import make_train_step
from tpo_jax.training.step_clock import goodput, time_spent
from tpo_jax.training.xla_options import options_refused

SHOWN = 5  # dropped pairs
NOTES = "train_notes"  # curves and lines of a run whose train_dir is in a bucket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Trains on RUN_DIR/pairs (with RUN_DIR/reference, unless by SFT alone) and writes "
        "RUN_DIR/train: Orbax checkpoints, metrics.jsonl and TensorBoard curves. Killed and run "
        "again, it goes on from the newest checkpoint and ends with the same weights. "
        "config.train_dir is used instead of RUN_DIR/train and may be in a bucket (gs://); curves "
        "are then in RUN_DIR/train_notes."
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: say how many steps, which pairs are dropped, how much is padding, and "
        "what the checkpoints need of the disk",
    )
    parser.add_argument(
        "--debug-batch",
        type=int,
        metavar="STEP",
        help="train nothing: show each pair of this step's batch under the newest checkpoint, and "
        "where in the model something is not finite; exit status 1 if anything is",
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> int | None:
    """Run the verb."""
    settings = read_settings(config)
    if args.debug_batch is not None:
        return debug_batch(read_inputs(settings), args.debug_batch)
    if args.dry_run:
        inputs = read_inputs(settings)
        tell_loading(inputs.training, inputs.plan())
        dry_run(inputs)
        return None
    with all_hosts(settings):
        train_policy(settings)
    return None


def train_policy(settings: RunConfig) -> None:
    """Train to the end, from wherever an earlier run of the same config stopped."""
    if settings.train.wandb:
        import_wandb()  # said before anything is read
    inputs = read_inputs(settings)
    mesh, training, steps = inputs.mesh, inputs.training, inputs.steps
    out = settings.folder("train")
    with stage_progress("train", steps) as update:
        if is_done(out, "train", inputs.made_from):
            update(steps, "done before")
            return
        loss = settings.loss
        reference = inputs.read_reference()
        plan = inputs.plan()
        loading = tell_loading(training, plan)
        optimizer = make_optimizer(settings.train, steps)
        step = make_train_step(
            training.model.graph,
            loss,
            optimizer,
            jnp.dtype(settings.compute_dtype),
            accumulate=settings.train.accumulate,
            grad_norm_limit=settings.train.grad_norm_limit,
        )
        with (
            building_together(out, inputs.made_from) as partial,
            options_refused(settings.train.xla_options),
            put_off(settings.train.grace_seconds) as terminated,
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
                    places=host_rows(mesh, settings.train.batch_pairs),
                    reference=reference,
                    workers=settings.train.loader_workers,
                ),
                partial,
                notes=settings.folder(NOTES) if in_bucket(out) else None,
                config=LoopConfig(
                    **{one.name: getattr(settings.train, one.name) for one in fields(LoopConfig)}
                    | {"steps": steps}
                ),
                mesh=mesh,
                compute_dtype=settings.compute_dtype,
                at_reference=loss.pair_loss.at_reference if loss.needs_reference else None,
                xla_options=settings.train.xla_options,
                pair_ids=lambda number: training.rows.ids(plan.numbers_SB[number]),
                speed=Utilisation(
                    config=training.model.config,
                    trained=frozenset(training.model.params) - set(settings.train.frozen),
                    devices=mesh.devices.flatten().tolist(),
                ),
                profile=settings.profile,
                must_end=terminated,
                progress=lambda done, total, detail: update(done, detail),
                warn=warn,
            )
            runs_with = {name: getattr(settings.train, name) for name in RUNS_WITH}
            if is_first_host():
                spent = time_spent(read_metrics(partial))
                write_manifest(
                    partial,
                    "train",
                    inputs.made_from,
                    steps=steps,
                    pairs=len(training.rows.pairs),
                    runs_with=runs_with,
                    loading=loading,
                    time=spent | {"goodput": goodput(spent)},
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
