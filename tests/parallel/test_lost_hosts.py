"""A process of several dies: the others end in time, and the launcher says so and asks for more."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest

from tests.parallel.processes import environment, free_address, place_of
from tpo_jax.cli.launch import EXIT_AGAIN, wait_for
from tpo_jax.cli.main import main
from tpo_jax.errors import InputError
from tpo_jax.parallel import distributed
from tpo_jax.parallel.distributed import COORDINATOR, PROCESS, DistributedConfig, start

HEARTBEAT = 6
# Works on with the other one until something happens to one of them.
WORKER = f"""
import time
import numpy as np
from jax.experimental import multihost_utils
from tpo_jax.parallel.distributed import DistributedConfig, start

start(DistributedConfig(heartbeat_seconds={HEARTBEAT}))
for step in range(10**6):
    total = multihost_utils.process_allgather(np.ones(()))
    print("step", step, flush=True)
    time.sleep(0.05)
"""
# One finds a mistake of the user that the other does not see, or has a bug.
MISTAKEN = f"""
import sys
import numpy as np
from jax.experimental import multihost_utils
from tpo_jax.cli import launch
from tpo_jax.errors import InputError
from tpo_jax.parallel.distributed import DistributedConfig, is_first_host, start

def verb(arguments):
    start(DistributedConfig(heartbeat_seconds={HEARTBEAT}))
    multihost_utils.process_allgather(np.ones(()))
    if is_first_host() == (arguments[0] == "0"):
        if arguments[1] == "raises":
            raise RuntimeError("a bug")
        return 2
    multihost_utils.process_allgather(np.ones(()))
    return 0

launch.main = verb
sys.exit(launch.run_verb(sys.argv[1:]))
"""


@contextmanager
def pair(script: str, *arguments: str) -> Iterator[list[subprocess.Popen]]:
    """Two processes of one run, one device each."""
    address = free_address()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env=environment(1, **place_of(number, 2, address)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for_line(process: subprocess.Popen, begin: str) -> None:
    assert process.stdout is not None
    assert any(line.startswith(begin) for line in process.stdout), "ended before its time"


@pytest.mark.parametrize("dead", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_other_ends_in_time_and_the_launcher_says_so(
    dead: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pair(WORKER) as processes:
        wait_for_line(processes[1 - dead], "step 3")
        processes[dead].kill()
        began = time.monotonic()
        code = wait_for(processes)
        seconds = time.monotonic() - began
    assert code == EXIT_AGAIN
    assert seconds < 2 * HEARTBEAT + 5, seconds  # to notice, and to wait for an orderly end
    assert processes[1 - dead].returncode == -signal.SIGABRT
    told = capsys.readouterr().err.splitlines()
    assert f"tpo launch: process {dead} ended by SIGKILL (killed from outside" in told[dead]
    assert f"process {1 - dead} ended by SIGABRT (lost contact" in told[1 - dead]
    assert len(told) == 2


@pytest.mark.parametrize("mistaken", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_a_mistake_that_one_finds_ends_all_and_is_not_tried_again(mistaken: str) -> None:
    with pair(MISTAKEN, mistaken, "says") as processes:
        assert wait_for(processes) == 2
        assert processes[int(mistaken)].returncode == 2


@pytest.mark.slow
def test_what_one_raises_ends_both() -> None:
    """The other may see it as an error of the exchange (1), or JAX ends it (SIGABRT)."""
    with pair(MISTAKEN, "1", "raises") as processes:
        assert wait_for(processes) in (1, EXIT_AGAIN)
        assert processes[1].returncode == 1


def test_the_exit_status_is_the_verbs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--", "train", f"--config.run_dir={tmp_path}", "--config.none=1"]) == 2
    assert "tpo train: error: unknown config key none" in capfd.readouterr().err


class Ended:
    """A process that has."""

    def __init__(self, code: int):
        self.code = code

    def wait(self) -> int:
        return self.code


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], 0),
        ([0, 1], 1),
        ([2, -signal.SIGABRT], 2),
        ([-signal.SIGTERM], EXIT_AGAIN),
        ([0, EXIT_AGAIN], EXIT_AGAIN),
    ],
)
def test_one_code_of_many(codes: Sequence[int], code: int) -> None:
    assert wait_for([Ended(one) for one in codes]) == code  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({COORDINATOR: "localhost:1"}, "JAX_NUM_PROCESSES is not set"),
        (place_of(2, 2, "localhost:1"), "JAX_PROCESS_ID=2: must be from 0 to"),
        ({**place_of(0, 2, "localhost:1"), PROCESS: "first"}, "must be numbers"),
    ],
)
def test_variables_that_do_not_go_together(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said):
        start(DistributedConfig())


@pytest.mark.parametrize(
    ("variables", "starts"),
    [
        ({}, True),  # JAX asks the machine
        ({"TPU_SKIP_MDS_QUERY": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_SKIP_MDS_QUERY": "1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, False),
    ],
)
def test_on_a_tpu_jax_finds_the_others(
    variables: dict[str, str], starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "find_spec", lambda name: name)
    monkeypatch.setattr(distributed, "glob", lambda pattern: ["/dev/accel0"])
    started: list[dict] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **how: started.append(how))
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    start(DistributedConfig(heartbeat_seconds=7))
    times = {"heartbeat_timeout_seconds": 7, "shutdown_timeout_seconds": 7}
    assert started == ([times] if starts else [])


def test_a_single_process_starts_nothing() -> None:
    start(DistributedConfig())
    assert not jax.distributed.is_initialized()
