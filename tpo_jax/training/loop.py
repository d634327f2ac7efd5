"""The loop around the step: batches in, metrics out, checkpoints on the way."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from tensorboardX import SummaryWriter

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params
from tpo_jax.parallel.distributed import own_or_shared
from tpo_jax.parallel.mesh import place_batch
from tpo_jax.parallel.rules import param_shardings
from tpo_jax.training.alarms import WINDOW, likelihood_alarm
from tpo_jax.training.checkpoints import Checkpoints
from tpo_jax.training.step import TrainState, TrainStep, init_state
from tpo_jax.training.xla_options import tpu_options

METRICS_FILE = "metrics.jsonl"
CHECKPOINTS_FOLDER = "checkpoints"
# Before the first step the policy is the reference: margins are 0, and the loss on pairs is what it
# is there (ln 2 for DPO). In bf16 that is exact if the table was made on the same mesh; another one
# rounds otherwise, and a margin over answers of 300 tokens was off by 0.03.
FIRST_STEP_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}

HostBatch = Mapping[str, np.ndarray]
Progress = Callable[[int, int, str], None]
Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train, how often to save, and what to do about a loss that is not finite.

    Such a step changes nothing. `on_nonfinite` says whether the run then stops or goes on with the
    next batch; it stops all the same after `max_skipped` of them in a row.
    """

    steps: int
    save_every: int = 50
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: int = 5


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
    folder: Path,
    *,
    config: LoopConfig,
    mesh: Mesh,
    compute_dtype: str,
    at_reference: float | None,
    xla_options: Sequence[str] = (),
    progress: Progress,
    warn: Warn,
) -> TrainState:
    """Train to `config.steps`, from the newest checkpoint in `folder` if there is one.

    `batches_from(n)` gives the batches from step n on, so resuming costs nothing. Metrics go to
    `metrics.jsonl`, a line a step, and to TensorBoard. `warn` is told when chosen answers become
    less likely while the margin grows, at most once in so many steps as the alarm looks at, and of
    a checkpoint that is damaged.

    Raises:
      InputError: a loss or gradient is not finite (see LoopConfig), or the loss on pairs of the
        first step is not `at_reference` (see `PairLoss`; None for a loss without one), so that the
        reference table was not made by the model being trained.
    """
    shardings = param_shardings(mesh, state)
    state = jax.device_put(state, shardings)
    compiled = jit_step(step, shardings, tpu_options(xla_options, mesh))
    with (
        Checkpoints(
            folder / CHECKPOINTS_FOLDER, save_every=config.save_every, warn=warn
        ) as checkpoints,
        own_or_shared(folder) as notes,
    ):
        start = checkpoints.latest or 0
        if start:
            state = checkpoints.restore(state)
        lines = _metrics_before(notes / METRICS_FILE, start)
        board = SummaryWriter(str(notes / "tensorboard"), purge_step=start)
        with (notes / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.truncate(sum(len(line.encode()) for line in lines))
            batches = batches_from(start)
            history = [_nan_for_none(json.loads(line)) for line in lines]
            warned = start
            skipped, unchecked = 0, at_reference is not None and start == 0
            batch = place_batch(mesh, next(batches)) if start < config.steps else {}
            for number in range(start, config.steps):
                with jax.set_mesh(mesh):
                    state, metrics = compiled(state, batch)
                # While the step runs, the next batch goes to the devices.
                following = next(batches) if number + 1 < config.steps else None
                batch = place_batch(mesh, following) if following else {}
                # Reading the metrics waits for the step: on CPU, steps must not pile up.
                seen = {name: float(value) for name, value in metrics.items()}
                skipped = skipped + 1 if seen["skipped"] else 0
                if skipped:
                    _check_skipped(folder, number + 1, skipped, seen, config)
                elif unchecked:
                    _check_first_step(seen, at_reference, compute_dtype)
                    unchecked = False
                file.write(json.dumps({"step": number + 1} | _finite_or_none(seen)) + "\n")
                file.flush()
                for name, value in seen.items():
                    board.add_scalar(name, value, number + 1)
                history.append(seen)
                if number + 1 - warned >= WINDOW and (said := likelihood_alarm(history)):
                    warn(f"step {number + 1}: {said}")
                    warned = number + 1
                checkpoints.save(number + 1, state, force=number + 1 == config.steps)
                detail = "skipped: not finite" if skipped else f"loss {seen['loss']:.3f}"
                progress(number + 1, config.steps, detail)
        board.close()
    return state


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run folder, one dict a step; NaN for what was not finite."""
    text = (folder / METRICS_FILE).read_text(encoding="utf-8")
    return [_nan_for_none(json.loads(line)) for line in text.split("\n")[:-1]]


def _nan_for_none(line: Mapping[str, float | None]) -> dict[str, float]:
    """What `_finite_or_none` was given."""
    return {name: math.nan if value is None else value for name, value in line.items()}


def _metrics_before(path: Path, step: int) -> list[str]:
    """Lines of the steps that the checkpoint holds; later ones are done again."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    return kept


def _finite_or_none(seen: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in seen.items()}


def _check_skipped(
    folder: Path, step: int, skipped: int, seen: Mapping[str, float], config: LoopConfig
) -> None:
    """Raises InputError when the run is not to go on after a step that changed nothing."""
    if config.on_nonfinite == "skip" and skipped <= config.max_skipped:
        return
    in_a_row = f" ({skipped} in a row)" if skipped > 1 else ""
    raise InputError(
        f"{folder}: at step {step} the loss is {seen['loss']} and the gradient's norm "
        f"{seen['grad_norm']}{in_a_row}; no parameter was changed by it; try a lower "
        "config.train.learning_rate, or leave such batches out with "
        'config.train.on_nonfinite="skip"'
    )


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
