"""Where curves are drawn: TensorBoard always, Weights & Biases where it is asked for."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter

from tpo_jax.errors import InputError

TENSORBOARD_FOLDER = "tensorboard"
WANDB_ID_FILE = "wandb_id"


class Board(Protocol):
    """Draws the metrics of steps."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's folder; what they have of later steps than `start` is hidden."""

    def __init__(self, folder: Path, start: int):
        self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=start)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """A point of each curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

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
