"""`tpo reference`: pairs -> table of the reference's log-probs."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from data_pipelines.artefacts import write_manifest
from data_pipelines.batch_plan import BatchPlan, plan_once
from data_pipelines.loader import load_batches
from tpo_jax.cli.hosts import all_hosts, building_together
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.rows import TrainingRows, read_rows
from tpo_jax.cli.settings import RunConfig, is_done, read_settings
from tpo_jax.errors import InputError
from tpo_jax.parallel.distributed import is_first_host
from tpo_jax.parallel.mesh import check_batch, host_rows, make_mesh, place_batch
from tpo_jax.preference.reference import make_reference_step, part_path, write_part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Runs the checkpoint once over every pair of RUN_DIR/pairs, on the very rows that training "
        "uses, and writes RUN_DIR/reference. No reference model is needed in memory while training."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    with all_hosts(settings):
        make_reference(settings)


def make_reference(settings: RunConfig) -> None:
    """Compute the parts that are missing; rename the folder when all are there.

    Raises:
      InputError: the config's loss has no use for a reference, or something is missing.
    """
    if not settings.loss.needs_reference:
        raise InputError(
            "config.loss.dpo_weight is 0, so no reference is needed; go on with `tpo train`"
        )
    mesh = make_mesh(settings.mesh)
    check_batch(mesh, settings.train.batch_pairs)
    training = read_rows(settings, "reference", mesh)
    out = settings.folder("reference")
    count = len(training.rows.pairs)
    with stage_progress("reference", count) as update:
        if is_done(out, "reference", training.made_from):
            update(count, "done before")
            return
        with building_together(out, training.made_from) as partial:
            _compute_parts(settings, training, mesh, partial, update)
            if is_first_host():
                write_manifest(partial, "reference", training.made_from, pairs=count)


def _compute_parts(settings: RunConfig, training: TrainingRows, mesh, partial, update) -> None:  # type: ignore[no-untyped-def]
    size = settings.train.batch_pairs
    step = jax.jit(make_reference_step(training.model.graph, jnp.dtype(settings.compute_dtype)))
    pairs = training.rows.pairs
    # In the shapes of training, each compiled once: the last batch of a bucket is filled up.
    plan = plan_once(training.rows.buckets, batch=size)
    # Before any host has computed a part, so all find the same ones.
    missing = [number for number in range(len(plan)) if not part_path(partial, number).exists()]
    left = BatchPlan(numbers_SB=plan.numbers_SB[missing], buckets_S=plan.buckets_S[missing])
    batches = load_batches(training.rows, left, places=host_rows(mesh, size))
    done = len(pairs) - sum(len(np.unique(numbers)) for numbers in left.numbers_SB)
    for number in missing:
        batch = place_batch(mesh, next(batches))
        with jax.set_mesh(mesh):  # as in training: the same layout, the same rounding
            rows = step(training.model.params, batch)
        logprobs_N2A = multihost_utils.process_allgather(rows, tiled=True)
        numbers = np.unique(plan.numbers_SB[number])  # ascending, as they stand in the batch
        ids = [pairs[int(one)].id for one in numbers]
        if is_first_host():
            write_part(partial, number, ids, logprobs_N2A[: len(ids)])
        done += len(ids)
        update(done)
