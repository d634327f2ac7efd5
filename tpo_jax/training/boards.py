"""Where curves are drawn: TensorBoard always, Weights & Biases where it is asked for."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from tpo_jax.errors import InputError

TENSORBOARD_FOLDER = "tensorboard"
WANDB_ID_FILE = "wandb_id"


class Board(Protocol):
    """Draws the metrics of steps."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's folder; what they have of later steps than `start` is hidden.

    Each step is written at once and by this thread: a thread of its own would die on a full disk,
    and what waits for it would wait for ever.
    """

    def __init__(self, folder: Path, start: int):
        place = folder / TENSORBOARD_FOLDER
        place.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(place / "events"))
        # Hides points of this step and later ones that an earlier file has.
        self._add(start + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """A point of each curve."""
        for name, value in metrics.items():
            self._add(step, summary=scalar(name, value))
        self._writer.flush()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.write_event(Event(step=step, wall_time=time.time(), **content))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class WandB:
    """A run of a Weights & Biases project, the same one when training goes on.

    Its id stands in the run's folder. Steps that are done again are not drawn again.
    """

    def __init__(self, project: str, folder: Path):
        path = folder / WANDB_ID_FILE
        if not path.exists():
            path.write_text(secrets.token_hex(8))
        self._run = import_wandb().init(
            project=project,
            name=folder.absolute().parent.name,
            dir=str(folder),
            id=path.read_text(),
            resume="allow",
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """A point of each curve."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


def import_wandb() -> Any:
    """The wandb package, which nothing else needs; InputError if it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            "config.train.wandb needs the package wandb: pip install tpo_jax[wandb], or leave "
            'config.train.wandb="" (TensorBoard and metrics.jsonl are always written)'
        ) from error
    return wandb


def open_boards(folder: Path, start: int, wandb_project: str) -> list[Board]:
    """TensorBoard, and a project of Weights & Biases unless its name is empty."""
    boards: list[Board] = [TensorBoard(folder, start)]
    if wandb_project:
        boards.append(WandB(wandb_project, folder))
    return boards
