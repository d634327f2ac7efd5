"""What `tpo train` reads, and in which order: for training, and for looking at one batch."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax.sharding import Mesh

from data_pipelines.artefacts import check_made_from, read_manifest
from data_pipelines.batch_plan import BatchPlan, plan_batches
from tpo_jax.cli.rows import TrainingRows, read_rows
from tpo_jax.cli.settings import RunConfig, as_json
from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import check_batch, make_mesh
from tpo_jax.preference.reference import read_table
from tpo_jax.training.step import check_accumulate

# Changes time and memory, and no result but in the order of sums: recorded beside the recipe.
RUNS_WITH = ("remat", "accumulate", "xla_options", "loader_workers")
SAVES_WITH = ("save_every", "keep_last", "keep_every", "keep_best_by", "grace_seconds")
# May be changed in the middle of a run: what is done about bad steps, and where curves are drawn.
MAY_CHANGE = ("on_nonfinite", "max_skipped", "grad_norm_limit", "wandb")


@dataclass(frozen=True, kw_only=True)
class TrainInputs:
    """The mesh, the rows, how many steps there are, and what a training run depends on."""

    settings: RunConfig
    mesh: Mesh
    training: TrainingRows
    steps: int
    made_from: dict[str, Any]

    def plan(self) -> BatchPlan:
        """Which pairs make which batch."""
        return plan_batches(
            self.training.numbers,
            self.training.rows.buckets,
            steps=self.steps,
            batch=self.settings.train.batch_pairs,
            seed=self.settings.seed,
        )

    def read_reference(self) -> dict[str, np.ndarray] | None:
        """The reference's log-probs by pair id; None where the loss has no use for them."""
        if not self.settings.loss.needs_reference:
            return None
        return _read_reference(self.settings, self.training)


def read_inputs(settings: RunConfig) -> TrainInputs:
    """Read pairs, frames and model; the model's parameters go to the mesh."""
    mesh = make_mesh(settings.mesh)
    check_batch(mesh, settings.train.batch_pairs)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    check_accumulate(settings.train.batch_pairs, settings.train.accumulate, ways)
    training = read_rows(settings, "train", mesh)
    epochs, size = settings.train.epochs, settings.train.batch_pairs
    steps = settings.train.steps or max(1, epochs * len(training.numbers) // size)
    return TrainInputs(
        settings=settings,
        mesh=mesh,
        training=training,
        steps=steps,
        made_from=train_made_from(settings, training, steps),
    )


def train_made_from(settings: RunConfig, training: TrainingRows, steps: int) -> dict:
    """What a training run depends on. What changes only time and memory is left out."""
    recipe = as_json(replace(settings.train, steps=steps))
    for name in ("epochs", *RUNS_WITH, *SAVES_WITH, *MAY_CHANGE):
        del recipe[name]
    return training.made_from | {
        "loss": as_json(settings.loss),
        "train": recipe,
        "seed": settings.seed,
    }


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
