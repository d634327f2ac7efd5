"""`tpo train --debug-batch=STEP`: the pairs of one batch, one after another; nothing is written."""

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.artefacts import check_unfinished, partial_folder
from data_pipelines.batch_plan import BatchPlan
from data_pipelines.loader import load_batches
from tpo_jax.cli.settings import is_done
from tpo_jax.cli.train_inputs import TrainInputs
from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params
from tpo_jax.parallel.mesh import host_rows, place_batch
from tpo_jax.parallel.rules import param_shardings
from tpo_jax.training.checkpoints import saved_steps, stored_params
from tpo_jax.training.loop import CHECKPOINTS_FOLDER
from tpo_jax.training.optimizer import split_frozen
from tpo_jax.training.pair_check import find_fault, finite_leaves, make_pair_check

COLUMNS = ("loss", "logprob_chosen", "logprob_rejected", "reward_margin", "grad_norm")


def debug_batch(inputs: TrainInputs, step: int) -> int:
    """Print a line for each pair of the step's batch; 1 if something is wrong with one, else 0.

    The parameters are those of the newest checkpoint, and not those that the step had.

    Raises:
      InputError: the run has no such step, or the newest checkpoint is damaged.
    """
    if not 1 <= step <= inputs.steps:
        raise InputError(f"--debug-batch={step}: the steps of this run are 1 to {inputs.steps}")
    settings, mesh, training = inputs.settings, inputs.mesh, inputs.training
    plan, reference = inputs.plan(), inputs.read_reference()
    params = _read_newest(inputs)
    faults = [name for name, finite in finite_leaves(params).items() if not finite]
    for name in faults:
        print(f"parameter {name} is not finite")

    numbers = np.unique(plan.numbers_SB[step - 1])
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    alone = BatchPlan(  # a batch for each pair: as many copies of it as the mesh needs
        numbers_SB=np.repeat(numbers[:, None], ways, axis=1),
        buckets_S=np.repeat(plan.buckets_S[step - 1], len(numbers)),
    )
    batches = load_batches(training.rows, alone, places=host_rows(mesh, ways), reference=reference)
    trained, frozen = split_frozen(params, settings.train.frozen)
    check = jax.jit(
        make_pair_check(training.model.graph, settings.loss, jnp.dtype(settings.compute_dtype))
    )
    for name, batch in zip(training.rows.ids(numbers), batches, strict=True):
        with jax.set_mesh(mesh):
            checked = jax.device_get(check(trained, frozen, place_batch(mesh, batch)))
        fault = find_fault(checked, batch.get("reference_logprobs"))
        seen, limit = checked[0], settings.train.grad_norm_limit
        if fault is not None:
            fault = f"not finite: {fault}"
        elif limit and seen["grad_norm"] > limit:
            fault = f"grad_norm is above config.train.grad_norm_limit={limit:g}"
        told = ", ".join(f"{key} {seen[key]:.5g}" for key in COLUMNS if key in seen)
        print(f"{name}: {told}; {fault or 'finite'}")
        faults += [name] * (fault is not None)
    return int(bool(faults))


def _read_newest(inputs: TrainInputs) -> Params:
    """The parameters of the newest checkpoint, or those before the first step; says which."""
    start = inputs.training.model.params
    folder = inputs.settings.folder("train")
    done = is_done(folder, "train", inputs.made_from)
    if not done:
        folder = partial_folder(folder)
    checkpoints = folder / CHECKPOINTS_FOLDER
    steps = saved_steps(checkpoints)
    if not steps:
        print(f"{checkpoints}: no checkpoint yet; the parameters are those before the first step")
        return start
    if not done:
        check_unfinished(folder, inputs.made_from)
    print(f"the parameters are those after step {steps[0]}, of {checkpoints}")
    stored = stored_params(checkpoints)
    return jax.tree.map(
        lambda leaf, sharding: jax.device_put(np.asarray(leaf), sharding),
        stored,
        param_shardings(inputs.mesh, start),
    )
