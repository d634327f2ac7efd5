"""What a disk refuses is one line with its mend and exit code 2, whichever stage meets it."""

import argparse
import errno
import os
import sys
import types
from pathlib import Path

import pytest

from tpo_jax.cli import main as main_module
from tpo_jax.cli.main import Verb, main
from tpo_jax.disk import fault_of_disk


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "run: No space left on device ("),
        (errno.EDQUOT, "run: Disk quota exceeded ("),
        (errno.EROFS, "a: Read-only file system; make it writable"),
        (errno.EACCES, "a: Permission denied; make it writable"),
    ],
)
def test_a_disk_that_refuses(number: int, said: str, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number), str(tmp_path / "a"))
    fault = fault_of_disk(error, tmp_path / "run")
    assert fault is not None and said in fault and "\n" not in fault
    try:
        raise RuntimeError("while saving") from error
    except RuntimeError as outer:
        assert fault_of_disk(outer, tmp_path / "run") == fault


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    lost = FileNotFoundError(errno.ENOENT, "No such file", str(run / "pairs" / "a.jsonl"))
    assert str(fault_of_disk(lost, run)).startswith(f"{run}: is gone; bring it back")
    run.mkdir()
    assert fault_of_disk(lost, run) is None, "a file that was to be there: a bug"


def test_other_errors_are_bugs(tmp_path: Path) -> None:
    elsewhere = FileNotFoundError(errno.ENOENT, "No such file", "/nowhere/a")
    for error in (elsewhere, ValueError("a bug"), ConnectionRefusedError(), PermissionError()):
        assert fault_of_disk(error, tmp_path / "run") is None


def test_a_verb_tells_it_as_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace, config: None) -> None:
        raise errors.pop()

    errors = [
        OSError(errno.EISDIR, "Is a directory", "a"),
        OSError(errno.ENOSPC, "No space left on device"),
    ]
    module = types.ModuleType("fake_verb")
    module.__dict__.update(add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, "fake_verb", module)
    verb = Verb(module="fake_verb", summary="", takes_config=False)
    monkeypatch.setitem(main_module.VERBS, "fake", verb)
    assert main(["fake"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tpo fake: error: {Path.cwd()}: No space left on device (")
    with pytest.raises(IsADirectoryError):
        main(["fake"])


def test_a_run_folder_that_may_not_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    # Linux lets nobody make a folder there.
    assert main(["demo", "--config.run_dir=/sys/tpo_run"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1 and "/sys/tpo_run" in lines[0] and "make it writable" in lines[0]
