"""The loop around the step: batches in, metrics out, checkpoints on the way."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from tensorboardX import SummaryWriter

from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import batch_sharding
from tpo_jax.parallel.rules import param_shardings
from tpo_jax.training.checkpoints import Checkpoints
from tpo_jax.training.step import TrainState, TrainStep

METRICS_FILE = "metrics.jsonl"
CHECKPOINTS_FOLDER = "checkpoints"
# Before the first step the policy is the reference: every margin is 0 and the DPO loss ln 2.
FIRST_STEP_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}

HostBatch = Mapping[str, np.ndarray]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train and how often to save."""

    steps: int
    save_every: int = 50


def train(
    state: TrainState,
    step: TrainStep,
    batches_from: Callable[[int], Iterator[HostBatch]],
    folder: Path,
    *,
    config: LoopConfig,
    mesh: Mesh,
    compute_dtype: str,
    checks_reference: bool,
    progress: Progress,
) -> TrainState:
    """Train to `config.steps`, from the newest checkpoint in `folder` if there is one.

    `batches_from(n)` gives the batches from step n on, so resuming costs nothing. Metrics go to
    `metrics.jsonl`, a line a step, and to TensorBoard.

    Raises:
      InputError: the loss is not finite, or (with `checks_reference`) the first step shows that
        the reference table was not made by the model that is being trained.
    """
    # Pinned, so that the state comes out of a step as it went in and the step compiles once.
    shardings = param_shardings(mesh, state)
    state = jax.device_put(state, shardings)
    compiled = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    sharding = batch_sharding(mesh)
    with Checkpoints(folder / CHECKPOINTS_FOLDER, save_every=config.save_every) as checkpoints:
        start = checkpoints.latest or 0
        if start:
            state = checkpoints.restore(state)
        lines = _metrics_before(folder / METRICS_FILE, start)
        board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        with (folder / METRICS_FILE).open("w", encoding="utf-8") as file:
            file.writelines(lines)
            batches = batches_from(start)
            for number in range(start, config.steps):
                batch = jax.device_put(dict(next(batches)), sharding)
                state, metrics = compiled(state, batch)
                # Reading the metrics waits for the step: on CPU, steps must not pile up.
                seen = {name: float(value) for name, value in metrics.items()}
                if number == 0 and checks_reference:
                    _check_first_step(seen, compute_dtype)
                if not math.isfinite(seen["loss"]):
                    raise InputError(
                        f"{folder}: the loss of step {number + 1} is {seen['loss']}; the newest "
                        "checkpoint is from before it; try a lower config.train.learning_rate"
                    )
                file.write(json.dumps({"step": number + 1} | seen) + "\n")
                file.flush()
                for name, value in seen.items():
                    board.add_scalar(name, value, number + 1)
                checkpoints.save(number + 1, state, force=number + 1 == config.steps)
                progress(number + 1, config.steps, f"loss {seen['loss']:.3f}")
        board.close()
    return state


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run folder, one dict a step."""
    text = (folder / METRICS_FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n")[:-1]]


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


def _check_first_step(seen: Mapping[str, float], compute_dtype: str) -> None:
    off = max(abs(seen["dpo_loss"] - math.log(2)), abs(seen["reward_margin"]))
    if off > FIRST_STEP_TOLERANCE[compute_dtype]:
        raise InputError(
            f"at the first step the DPO loss is {seen['dpo_loss']:.5f} and the margin "
            f"{seen['reward_margin']:.5f}, not ln 2 and 0: the reference table was not made by "
            "this model on these rows; delete it and run `tpo reference` again"
        )
