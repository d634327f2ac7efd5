"""Weights & Biases beside TensorBoard: asked for by name, imported only then."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tpo_jax.errors import InputError
from tpo_jax.training.run_log import RunLog


class StubRun:
    """What `wandb.init` returns, as far as it is used."""

    def __init__(self, **asked: Any):
        self.asked = asked
        self.logged: list[tuple[int, dict]] = []
        self.finished = 0

    def log(self, values: dict, step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[StubRun]:
    """A module `wandb`; the runs that it is asked for."""
    made: list[StubRun] = []

    def init(**asked: Any) -> StubRun:
        made.append(StubRun(**asked))
        return made[-1]

    stub = ModuleType("wandb")
    stub.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stub)
    return made


def test_metrics_go_to_one_run_however_often_training_starts(
    tmp_path: Path, runs: list[StubRun]
) -> None:
    for step in (1, 2):
        with RunLog(tmp_path, step - 1, "tpo") as log:
            log.write(step, {"loss": 0.5})
    assert [one.logged for one in runs] == [[(1, {"loss": 0.5})], [(2, {"loss": 0.5})]]
    assert [one.finished for one in runs] == [1, 1]
    first, second = (one.asked for one in runs)
    assert first == second and first["project"] == "tpo" and first["resume"] == "allow"
    assert first["dir"] == str(tmp_path) and first["name"] == tmp_path.parent.name
    assert list((tmp_path / "tensorboard").iterdir())


def test_another_folder_is_another_run(tmp_path: Path, runs: list[StubRun]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        RunLog(tmp_path / name, 0, "tpo").close()
    assert runs[0].asked["id"] != runs[1].asked["id"]


def test_it_is_not_imported_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    RunLog(tmp_path, 0).close()
    with pytest.raises(InputError, match=r"pip install tpo_jax\[wandb\]"):
        RunLog(tmp_path, 0, "tpo")
