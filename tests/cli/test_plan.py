"""`tpo plan`: a small step compiled for TPUs that are not there, and what is said of it."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.small_model import small_model_json
from tpo_jax.cli.main import main

needs_compiler = pytest.mark.skipif(
    find_spec("libtpu") is None, reason="libtpu, which holds the TPU compiler, is not installed"
)
SMALL = [
    "--topology=v5e:2x2",
    "--frames=4",
    "--answer-tokens=64",
    "--pairs=4",
    "--config.train.remat=offload",
    "--config.mesh.context=2",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.json of a model of two layers, and nothing else."""
    folder = tmp_path_factory.mktemp("model")
    content = small_model_json() | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def command(checkpoint: Path, *more: str) -> list[str]:
    return ["plan", f"--config.checkpoint={checkpoint}", *SMALL, *more]


@pytest.mark.slow
@needs_compiler
def test_a_small_step(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(checkpoint, "--json")) == 0
    (found,) = json.loads(capsys.readouterr().out)["slices"]
    assert found["mesh"] == {"data": 1, "fsdp": 2, "context": 2, "tensor": 1}
    assert found["row"]["tokens"] % (2 * 2 * 512) == 0
    memory: dict[str, Any] = found["memory"]
    assert memory["fits"] and not memory["refused"]
    assert sum(memory["parts"].values()) == memory["peak_bytes"] > 0
    # Two moments to a trained parameter, in fp32 as it is; the tower has none.
    assert memory["parts"]["optimizer"] == pytest.approx(2 * memory["parts"]["gradients"], rel=0.01)
    kept = 2 * 2 * (found["row"]["tokens"] // 2) * 128 * 2  # layers x rows x tokens x width x bf16
    assert memory["host_bytes"] >= kept
    assert found["traffic"]["host_bytes"] >= 2 * kept
    assert found["traffic"]["unknown_loops"] == []
    assert {"collective-permute", "all-gather"} <= set(found["traffic"]["by_kind"])
    assert found["time"]["seconds"] > 0 and 0 < found["time"]["utilisation"] < 1
    assert found["run"]["chip_hours"] == pytest.approx(4 * found["run"]["hours"])


@pytest.mark.slow
@needs_compiler
def test_a_killed_plan_stops_no_other_and_two_run_at_once(checkpoint: Path) -> None:
    program = [sys.executable, "-m", "tpo_jax.cli.main", *command(checkpoint, "--step=reference")]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    killed = subprocess.Popen(program, **quiet, env=dict(os.environ))  # type: ignore[call-overload]
    time.sleep(4)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    both = [
        subprocess.Popen(program, **quiet, env=dict(os.environ))  # type: ignore[call-overload]
        for _ in range(2)
    ]
    for one in both:
        out, err = one.communicate(timeout=300)
        assert one.returncode == 0, err[-2000:]
        assert "peak HBM" in out


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("xla_no_such=1", "No such compile option"),
        ("xla_tpu_scoped_vmem_limit_kib=much", "Failed to parse 'much'"),
        ("vmem=3", "write an option as"),
    ],
)
def test_an_option_that_the_compiler_does_not_know(
    checkpoint: Path, option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(checkpoint, f"--config.train.xla_options={option}")) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--topology=v5p-127"], "v5p-128"),
        (["--model=llava_vidoe_7b"], "llava_video_7b"),
        (["--pairs=3"], "does not divide"),
        (["--pairs=0"], "give 1 or more"),
        (["--config.mesh.context=3"], "does not multiply to the 4 devices"),
        (["--find-batch", "--find-max-frames"], "not allowed with"),
    ],
)
def test_what_cannot_be_planned_is_a_sentence(
    checkpoint: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is compiled."""
    assert main(command(checkpoint, *more)) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_missing_compiler_is_a_sentence(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tpo_jax.planning.compiler.find_spec", lambda name: None)
    assert main(command(checkpoint)) == 2
    assert "pip install tpo_jax[plan]" in capsys.readouterr().err
