"""What a run writes of its steps: metrics as JSON lines and curves, and which batches were bad."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from etils import epath

from tpo_jax.bucket import path_at
from tpo_jax.errors import InputError
from tpo_jax.training.boards import open_boards
from tpo_jax.training.step_clock import time_spent, without_timing

METRICS_FILE = "metrics.jsonl"
BAD_BATCHES_FILE = "bad_batches.jsonl"


class RunLog:
    """Opened at the step a run goes on from: what it has of later ones is cut off, and done again.

    Attributes:
      history: the metrics of all steps so far, one dict a step.
      spent: their seconds by field.
    """

    def __init__(self, folder: Path, start: int, wandb_project: str = ""):
        self._folder = folder = Path(folder)
        for name in (METRICS_FILE, BAD_BATCHES_FILE):
            _cut_lines(folder / name, start)
        path = folder / METRICS_FILE
        self.history = read_metrics(folder) if path.exists() and path.stat().st_size else []
        self.spent = time_spent(self.history)
        self._boards = open_boards(folder, start, wandb_project)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Writes what curves have still to write."""
        for board in self._boards:
            board.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of a step; steps count from 1."""
        _add_line(self._folder / METRICS_FILE, {"step": step, **_finite_or_none(metrics)})
        for board in self._boards:
            board.write(step, metrics)
        self.history.append({"step": step, **metrics})
        for name, seconds in time_spent([metrics]).items():
            self.spent[name] += seconds

    def write_bad_batch(self, step: int, ids: Sequence[str], metrics: Mapping[str, float]) -> None:
        """Of which pairs the batch of a step was that changed nothing."""
        seen = _finite_or_none({name: metrics[name] for name in ("loss", "grad_norm")})
        _add_line(self._folder / BAD_BATCHES_FILE, {"step": step, "pairs": list(ids), **seen})


def read_metrics(folder: epath.PathLike) -> list[dict[str, float]]:
    """The metrics of a run folder, one dict a step; NaN for what was not finite.

    Raises:
      InputError: the file is missing or damaged.
    """
    path = path_at(folder) / METRICS_FILE
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        found = [_nan_for_none(json.loads(line)) for line in lines]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train again") from error
    values = [value for line in found for value in line.values()]
    # Another machine, or an older version, tells other times.
    fields = [without_timing(line).keys() for line in found]
    if not values or any(one != fields[0] for one in fields):
        raise InputError(f"{path}: its lines do not tell the same of every step; train again")
    if "step" not in found[0] or not all(type(value) in (int, float) for value in values):
        raise InputError(f"{path}: holds other things than the numbers of steps; train again")
    return found


def _add_line(path: Path, content: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


def _cut_lines(path: Path, step: int) -> None:
    """Cuts off the lines of later steps than `step`, and one that was not written to its end.

    Raises:
      InputError: the file is damaged.
    """
    if not path.exists():
        return
    kept = 0
    try:
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            kept += len(line)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it") from error
    with path.open("ab") as file:
        file.truncate(kept)


def _finite_or_none(seen: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in seen.items()}


def _nan_for_none(line: Mapping[str, float | None]) -> dict[str, float]:
    """What `_finite_or_none` was given."""
    return {name: math.nan if value is None else value for name, value in line.items()}
