"""Curves: TensorBoard always; Weights & Biases asked for by name, imported only then."""

import errno
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

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


def events(folder: Path) -> list[Event]:
    """All that the event files have, the older file first."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        rest = path.read_bytes()
        while rest:  # a TFRecord: length, its checksum, the content, its checksum
            size = int.from_bytes(rest[:8], "little")
            found.append(Event.FromString(rest[12 : 12 + size]))
            rest = rest[16 + size :]
    return found


def test_each_step_is_seen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By TensorBoard's rule: a start hides all points of its step and of later ones before it."""
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        # Files are named by the second in which they are begun.
        monkeypatch.setattr("tensorboardX.event_file_writer.time.time", lambda s=start: 1e9 + s)
        with RunLog(tmp_path, start) as log:
            for step in steps:
                log.write(step, {"loss": step / 8 + start})
    seen: list[tuple[int, float]] = []
    for event in events(tmp_path / "tensorboard"):
        if event.HasField("session_log"):
            seen = [one for one in seen if one[0] < event.step]
        seen += [(event.step, value.simple_value) for value in event.summary.value]
    assert seen == [(1, 0.125), (2, 0.25), (3, 2.375), (4, 2.5)]


def test_a_full_disk_is_an_error_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not of a thread, which training would wait for."""

    def full(self: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = RunLog(tmp_path, 0)
    monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.flush", full)
    with pytest.raises(OSError, match="No space"):
        log.write(1, {"loss": 1.0})


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
