"""`tpo doctor`: each fault is found, named, and said how to mend; no check ends in a traceback."""

import errno
import importlib
import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tpo_jax.cli import doctor, doctor_machine
from tpo_jax.cli.doctor import CHECKS, examine
from tpo_jax.cli.doctor_findings import FAIL, OK, WARN, Finding, Request
from tpo_jax.cli.main import main


def check_that_all_is_well(request: Request) -> Finding:
    return Finding(status=OK, found=f"wrote to {request.run_dir}")


def check_that_warns(request: Request) -> Finding:
    return Finding(status=WARN, found="an [odd] thing", mend="look at it")


def check_that_raises(request: Request) -> Finding:
    raise RuntimeError("the device\n  is on fire")


@pytest.fixture
def own_checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Replaces the checks by those of this file; returns them, to be added to."""
    for check in (check_that_all_is_well, check_that_warns, check_that_raises):
        monkeypatch.setattr(doctor_machine, check.__name__, check, raising=False)
    checks = {"well": "doctor_machine:check_that_all_is_well"}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    return checks


def test_every_check_exists() -> None:
    """A misspelled place would fail its check on every machine."""
    for place in CHECKS.values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(f"tpo_jax.cli.{module}"), name))


def test_a_warning_is_no_failure(
    own_checks: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    own_checks["odd"] = "doctor_machine:check_that_warns"
    assert main(["doctor", "--run-dir=some/where"]) == 0
    out = capsys.readouterr().out
    assert "wrote to some/where" in out
    assert "WARN" in out and "an [odd] thing" in out and "look at it" in out
    assert "nothing failed" in out


def test_what_raises_is_a_failure_in_one_line(
    own_checks: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    own_checks["fire"] = "doctor_machine:check_that_raises"
    own_checks["gone"] = "doctor_of_nothing:check"
    assert main(["doctor", "--json"]) == 1
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["passed"] is False
    assert [row["status"] for row in said["checks"]] == [OK, FAIL, FAIL]
    assert said["checks"][1]["found"] == "RuntimeError: the device is on fire"
    assert "pip install" in said["checks"][2]["mend"]
    assert "Traceback" not in captured.out + captured.err


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = (*doctor_machine.PACKAGES, "no-such-package")
    monkeypatch.setattr(doctor_machine, "PACKAGES", packages)
    finding = examine(CHECKS["versions"], Request())
    assert finding.status == FAIL
    assert finding.found == "no-such-package not installed"
    assert finding.mend == "pip install no-such-package"


def test_a_version_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine(CHECKS["versions"], Request()).status == OK
    asked = ["flax>=0.1,<0.2", "jax>=0.10", 'torch<1; extra == "test"']
    monkeypatch.setattr(doctor_machine.metadata, "requires", lambda name: asked)
    finding = examine(CHECKS["versions"], Request())
    assert finding.status == WARN
    assert finding.found.startswith("flax ") and "<0.2" in finding.found
    assert "jax " not in finding.found


def test_a_folder_that_can_be_written(tmp_path: Path) -> None:
    request = Request(run_dir=str(tmp_path / "not" / "there"))
    assert examine(CHECKS["write access"], request).status == OK
    assert examine(CHECKS["clock"], request).status == OK
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_read_only_folder_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)  # root may write anywhere
    finding = examine(CHECKS["write access"], Request(run_dir=str(tmp_path)))
    assert finding.status == FAIL
    assert "Read-only file system" in finding.found and str(tmp_path) in finding.found
    assert "--run-dir" in finding.mend


def test_a_disk_that_loses_bytes_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"")
    assert examine(CHECKS["write access"], Request(run_dir=str(tmp_path))).status == FAIL


@pytest.mark.parametrize(("skew", "status"), [(0.5, OK), (-60.0, WARN), (3600.0, FAIL)])
def test_clock_skew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float, status: str
) -> None:
    monkeypatch.setattr(doctor_machine, "file_time", lambda path: time.time() + skew)
    finding = examine(CHECKS["clock"], Request(run_dir=str(tmp_path)))
    assert finding.status == status
    assert f"{skew:+.1f} s" in finding.found
    assert bool(finding.mend) == (status != OK)


def test_a_tpu_without_its_driver_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "accel0"
    device.touch()
    monkeypatch.setattr(doctor_machine, "TPU_DEVICES", (str(device),))
    monkeypatch.setattr(doctor_machine, "find_spec", lambda name: None)
    finding = examine(CHECKS["libtpu"], Request())
    assert finding.status == FAIL and finding.mend == "pip install .[tpu]"

    monkeypatch.setattr(doctor_machine, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor_machine.metadata, "version", lambda name: "1.2")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    finding = examine(CHECKS["libtpu"], Request())
    assert finding.status == FAIL and "JAX runs on cpu" in finding.found
    assert "JAX_PLATFORMS" in finding.mend


def test_a_lock_left_behind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "TPU_DEVICES", ())
    monkeypatch.setattr(doctor_machine, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor_machine.metadata, "version", lambda name: "1.2")
    lock = tmp_path / "libtpu_lockfile"
    monkeypatch.setattr(doctor_machine, "LIBTPU_LOCK", lock)
    assert examine(CHECKS["libtpu"], Request()).status == OK
    lock.touch()
    finding = examine(CHECKS["libtpu"], Request())
    assert finding.status == WARN and str(lock) in finding.mend
    lock.unlink()
    monkeypatch.delenv("JAX_PLATFORMS")
    finding = examine(CHECKS["libtpu"], Request())
    assert finding.status == WARN and "JAX_PLATFORMS=cpu" in finding.mend


def test_devices_and_mesh_of_this_machine() -> None:
    finding = examine(CHECKS["devices"], Request())
    assert finding.status == WARN and "8 x cpu" in finding.found
    finding = examine(CHECKS["mesh"], Request())
    assert finding.status == OK and "fsdp=8" in finding.found


def test_chips_of_other_hosts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:4])
    finding = examine(CHECKS["devices"], Request())
    assert finding.status == FAIL and "4 of them on this host" in finding.found


@pytest.mark.parametrize(("free", "status"), [(10**7, FAIL), (6 * 10**7, WARN), (10**9, OK)])
def test_free_disk_is_held_against_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str
) -> None:
    from tpo_jax.cli import doctor_model

    usage = type("Usage", (), {"free": free})()
    monkeypatch.setattr(doctor_model.shutil, "disk_usage", lambda folder: usage)
    finding = examine(CHECKS["free disk"], Request(run_dir=str(tmp_path)))
    assert finding.status == status
    assert f"{free / 1e9:,.1f} GB free" in finding.found


def test_a_checkpoint_that_is_not_there_is_named() -> None:
    assert examine(CHECKS["checkpoint"], Request(checkpoint="demo_base")).status == OK
    finding = examine(CHECKS["checkpoint"], Request(checkpoint="no/such/folder"))
    assert finding.status == FAIL and "no/such/folder" in finding.found


def test_a_video_is_made_and_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    from tpo_jax.cli import doctor_model

    finding = examine(CHECKS["video"], Request())
    assert finding.status == OK and finding.found.startswith("16 frames")
    whole = doctor_model.decode_frames
    monkeypatch.setattr(doctor_model, "decode_frames", lambda *a: (255 - x for x in whole(*a)))
    assert examine(CHECKS["video"], Request()).status == FAIL


def test_parity_outside_its_bound_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from tpo_jax.cli import doctor_model
    from tpo_jax.interop.verify import LOGITS, LayerError

    def measured(error: float) -> Any:
        row = LayerError(name=LOGITS, max_abs=error, relative=error, rms_relative=error)
        return lambda case, batch, dtype: [row]

    for error, status in ((0.01, OK), (0.2, FAIL), (float("nan"), FAIL)):
        monkeypatch.setattr(doctor_model, "measure_layers", measured(error))
        assert examine(CHECKS["parity"], Request()).status == status


def test_a_step_that_does_not_begin_at_the_reference_fails() -> None:
    from tpo_jax.cli import doctor_model

    seen = {"dpo_loss": math.log(2), "grad_norm": 3.0}
    assert doctor_model.step_finding(seen, 1).status == OK
    for wrong in ({"dpo_loss": 0.7}, {"dpo_loss": math.nan}, {"grad_norm": math.inf}):
        assert doctor_model.step_finding(seen | wrong, 1).status == FAIL, wrong


@pytest.mark.slow
def test_the_training_step_begins_at_the_reference() -> None:
    from tests.quick_compile import QUICK
    from tests.tiny import tiny_model
    from tpo_jax.api import load
    from tpo_jax.cli import doctor_model
    from tpo_jax.parallel.mesh import MeshConfig, make_mesh

    config, graph, params = tiny_model(layers=1)
    model = replace(load("demo_base"), config=config, graph=graph, params=params)
    mesh = make_mesh(MeshConfig(), devices=2)
    seen = doctor_model.one_step(model, mesh, compiler_options=QUICK)
    assert doctor_model.step_finding(seen, 1).status == OK
