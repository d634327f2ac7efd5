"""The loop around the step: batches in, metrics out, checkpoints on the way."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from tpo_jax.bucket import in_bucket, path_at
from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params
from tpo_jax.parallel.distributed import is_first_host, own_or_shared
from tpo_jax.parallel.mesh import place_batch
from tpo_jax.parallel.rules import param_shardings
from tpo_jax.preference.logprobs import Batch
from tpo_jax.termination import Terminated
from tpo_jax.training.alarms import WINDOW, likelihood_alarm
from tpo_jax.training.checkpoints import Checkpoints, SaveConfig
from tpo_jax.training.notes import kept_notes
from tpo_jax.training.profile import PROFILE_FOLDER, Profile, ProfileConfig
from tpo_jax.training.run_log import BAD_BATCHES_FILE, RunLog
from tpo_jax.training.step import TrainState, TrainStep, init_state
from tpo_jax.training.step_clock import StepClock, TimedStep, goodput
from tpo_jax.training.xla_options import tpu_options

CHECKPOINTS_FOLDER = "checkpoints"
# Before the first step the policy is the reference: margins are 0, and the loss on pairs is what it
# is there (ln 2 for DPO). In bf16 that is exact if the table was made on the same mesh; another one
# rounds otherwise, and a margin over answers of 300 tokens was off by 0.03.
FIRST_STEP_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}

HostBatch = Mapping[str, np.ndarray]
Progress = Callable[[int, int, str], None]
Warn = Callable[[str], None]
Speed = Callable[[Batch, Mapping[str, float], float], dict[str, float]]
PairIds = Callable[[int], Sequence[str]]
SHOWN_IDS = 4
NO_PROFILE = ProfileConfig()


@dataclass(frozen=True, kw_only=True)
class LoopConfig(SaveConfig):
    """How long to train, when to save, and what to do about a step that is bad.

    Bad is one whose loss or gradient is not finite, or whose gradient's norm, before clipping, is
    above `grad_norm_limit` (0: any norm is good). It changes nothing. `on_nonfinite` says whether
    the run then stops or goes on with the next batch; it stops all the same after `max_skipped` of
    them in a row. `wandb` names a project of Weights & Biases to draw the metrics in too.
    """

    steps: int
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: int = 5
    grad_norm_limit: float = 0.0
    wandb: str = ""

    def __post_init__(self) -> None:
        """ValueError when the limit is negative, or checkpoints are kept that are not made."""
        super().__post_init__()
        if not self.grad_norm_limit >= 0:
            raise ValueError(f"grad_norm_limit is {self.grad_norm_limit}; it must be 0 or more")


def init_sharded_state(
    trained: Params, frozen: Params, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """The state before the first step, laid out on the mesh by the sharding rules.

    Moments are made in their shards, and lie as their parameters do: none is ever whole on a
    device.

    Raises:
      InputError: a parameter does not divide over the mesh.
    """
    trained, frozen = (jax.device_put(p, param_shardings(mesh, p)) for p in (trained, frozen))
    shardings = param_shardings(mesh, jax.eval_shape(optimizer.init, trained))
    in_shards = jax.jit(optimizer.init, out_shardings=shardings)
    state = init_state(trained, frozen, optimizer._replace(init=in_shards))
    return replace(state, step=jax.device_put(state.step, param_shardings(mesh, state.step)))


def jit_step(step: TrainStep, state_shardings: TrainState, options: Mapping[str, str]) -> Any:
    """The step as it is run, and as `tpo plan` compiles it.

    The state that goes in is given away for the one that comes out, which lies as it did: so the
    step compiles once. `options` are the compiler's (`xla_options.tpu_options`).
    """
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(state_shardings, None),
        compiler_options=dict(options),
    )


def train(
    state: TrainState,
    step: TrainStep,
    batches_from: Callable[[int], Iterator[HostBatch]],
    folder: epath.PathLike,
    *,
    notes: Path | None = None,
    config: LoopConfig,
    mesh: Mesh,
    compute_dtype: str,
    at_reference: float | None,
    xla_options: Sequence[str] = (),
    pair_ids: PairIds = lambda step: (),
    speed: Speed = lambda batch, metrics, seconds: {},
    profile: ProfileConfig = NO_PROFILE,
    must_end: Callable[[], bool] = lambda: False,
    progress: Progress,
    warn: Warn,
) -> TrainState:
    """Train to `config.steps`, from the newest checkpoint in `folder` if there is one.

    `batches_from(n)` gives the batches from step n on, so resuming costs nothing. Metrics go to
    `metrics.jsonl`, a line a step, and to TensorBoard, with where its time went (`step_clock.py`;
    a save is in the line of the step after it) and what `speed(batch, metrics, seconds)` makes of
    it; the trace of the steps of `profile` to `profile/`. Of a step that changed nothing the ids of
    its pairs, `pair_ids(n)` for the batch that is `batches_from`'s n-th, go to
    `bad_batches.jsonl`. All these are in `folder`, or where that is in a bucket in the local folder
    `notes`, and the bucket gets the lines with each checkpoint (`notes.py`). `warn` is told when
    chosen answers become less likely while the margin grows, at most once in so many steps as the
    alarm looks at, and of a checkpoint that is damaged. `must_end` is asked after every step.

    Raises:
      Terminated: `must_end` said so, on any host; the state is saved.
      InputError: a loss or gradient is not finite (see LoopConfig), or the loss on pairs of the
        first step is not `at_reference` (see `PairLoss`; None for a loss without one), so that the
        reference table was not made by the model being trained.
    """
    shardings = param_shardings(mesh, state)
    state = jax.device_put(state, shardings)
    clock = StepClock()
    timed = TimedStep(jit_step(step, shardings, tpu_options(xla_options, mesh)), clock)
    folder = path_at(folder)
    assert notes is not None or not in_bucket(folder)
    with (
        own_or_shared(Path(notes or folder)) as own,
        kept_notes(own, folder) as keep,
        Checkpoints(
            folder / CHECKPOINTS_FOLDER, config=config, warn=warn, before_save=keep
        ) as checkpoints,
    ):
        start = checkpoints.latest or 0
        if start:
            state = checkpoints.restore(state)
        with (
            RunLog(own, start, config.wandb if is_first_host() else "") as log,
            Profile(own / PROFILE_FOLDER, profile) as profiler,
        ):
            batches = batches_from(start)
            warned = start
            skipped, unchecked = 0, at_reference is not None and start == 0
            with clock.measure("input"):
                batch = place_batch(mesh, next(batches)) if start < config.steps else {}
            for number in range(start, config.steps):
                with profiler.step(number + 1):
                    running = batch
                    with jax.set_mesh(mesh):
                        state, metrics = timed.start(state, running)
                    # While the step runs, the next batch goes to the devices.
                    following = next(batches) if number + 1 < config.steps else None
                    batch = place_batch(mesh, following) if following else {}
                    seconds = timed.wait()  # on CPU, steps must not pile up
                seen = {name: float(value) for name, value in metrics.items()}
                skipped = skipped + 1 if seen["skipped"] else 0
                if skipped:
                    ids = pair_ids(number)
                    log.write_bad_batch(number + 1, ids, seen)
                    _check_skipped(folder, number + 1, ids, skipped, seen, config)
                elif unchecked:
                    _check_first_step(seen, at_reference, compute_dtype)
                    unchecked = False
                line = seen | speed(running, seen, seconds) | clock.take()
                log.write(number + 1, line)
                if number + 1 - warned >= WINDOW and (said := likelihood_alarm(log.history)):
                    warn(f"step {number + 1}: {said}")
                    warned = number + 1
                with clock.measure("save"):
                    checkpoints.save(number + 1, state, seen, force=number + 1 == config.steps)
                    if _on_any_host(must_end()):
                        checkpoints.save(number + 1, state, seen, force=True)
                        raise Terminated(f"saved after step {number + 1}")
                detail = f"skipped: {_fault(seen, config)}" if skipped else _told(seen)
                share = f"{goodput(log.spent):.0%} of the time in steps"
                waited = f"{seconds:.3g} s a step, input {line['input_seconds']:.2g} s"
                progress(number + 1, config.steps, f"{detail}, {waited}, {share}")
    return state


def _on_any_host(said: bool) -> bool:
    """The same on all hosts, who must save together."""
    if jax.process_count() == 1:
        return said
    return bool(np.any(multihost_utils.process_allgather(np.asarray(said))))


def _check_skipped(
    folder: Path,
    step: int,
    ids: Sequence[str],
    skipped: int,
    seen: Mapping[str, float],
    config: LoopConfig,
) -> None:
    """Raises InputError when the run is not to go on after a step that changed nothing."""
    if config.on_nonfinite == "skip" and skipped <= config.max_skipped:
        return
    in_a_row = f" ({skipped} in a row)" if skipped > 1 else ""
    named = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
    pairs = f" on pairs {named}" if ids else ""
    look = f"; look at each pair with --debug-batch={step}" if ids else ""
    raise InputError(
        f"{folder}: at step {step}{in_a_row} {_fault(seen, config)}{pairs}; no parameter was "
        f"changed by it, and {BAD_BATCHES_FILE} names its pairs{look}; try a lower "
        "config.train.learning_rate, or leave such batches out with "
        'config.train.on_nonfinite="skip"'
    )


def _told(seen: Mapping[str, float]) -> str:
    """The metrics of a progress line, as far as the loss has them."""
    told = [f"loss {seen['loss']:.3f}"]
    if "reward_margin" in seen:
        told.append(f"margin {seen['reward_margin']:.3f}")
    if "reward_accuracy" in seen:
        told.append(f"accuracy {seen['reward_accuracy']:.0%}")
    return ", ".join(told)


def _fault(seen: Mapping[str, float], config: LoopConfig) -> str:
    """Why a step changed nothing."""
    loss, norm = seen["loss"], seen["grad_norm"]
    if math.isfinite(loss) and math.isfinite(norm):
        limit = config.grad_norm_limit
        return f"the gradient's norm is {norm:.4g}, above config.train.grad_norm_limit={limit:g}"
    return f"the loss is {loss} and the gradient's norm {norm}"


def _check_first_step(
    seen: Mapping[str, float], at_reference: float | None, compute_dtype: str
) -> None:
    if at_reference is None:
        return
    off = max(abs(seen["dpo_loss"] - at_reference), abs(seen["reward_margin"]))
    if off > FIRST_STEP_TOLERANCE[compute_dtype]:
        raise InputError(
            f"at the first step the loss on pairs is {seen['dpo_loss']:.5f} and the margin "
            f"{seen['reward_margin']:.5f}, not {at_reference:.5f} and 0: the reference table was "
            "not made by this model on these rows; delete it and run `tpo reference` again"
        )
