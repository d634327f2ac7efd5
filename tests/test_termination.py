"""SIGTERM ends `tpo` within its limit, in order where it can, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tpo_jax.termination import EXIT_TERMINATED, GOES_ON

ROOT = Path(__file__).parents[1]
# A verb of this process alone; `busy` is in C for a minute, as XLA is when it compiles.
SCRIPT = """
import hashlib, multiprocessing, sys, time, types
from tpo_jax import termination
from tpo_jax.cli import main as main_module

def busy():
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)

def run(args, config):
    {run}

if __name__ == "__main__":
    termination.LIMIT_SECONDS = termination._limit_seconds = 0.5
    module = types.ModuleType("fake_verb")
    module.add_arguments, module.run = lambda parser: None, run
    sys.modules["fake_verb"] = module
    verb = main_module.Verb(module="fake_verb", summary="", takes_config=False)
    main_module.VERBS["fake"] = verb
    if {words} != ["fake"]:
        import subprocess
        from tpo_jax.cli import launch

        if sys.argv[1:]:  # a process that `tpo launch` started
            sys.exit(launch.run_verb(sys.argv[1:]))
        launch.start_processes = lambda command, count: [
            subprocess.Popen([sys.executable, __file__, *command])
        ]
    sys.argv = ["tpo", *{words}]
    sys.exit(main_module.main())
"""
WAITS = """
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("in order", flush=True)
"""
COMPILES = """
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=[60])
    child.start()
    print("ready", child.pid, flush=True)
    busy()
"""
PUTS_OFF = """
    with termination.put_off(30) as asked:
        print("ready", flush=True)
        while not asked():
            time.sleep(0.01)
        time.sleep(1)  # longer than the usual limit
        raise termination.Terminated("saved after step 7")
"""
PUTS_OFF_TOO_LONG = """
    with termination.put_off(0.2) as asked:
        print("ready", flush=True)
        time.sleep(60)
"""
NEVER_ASKS = """
    with termination.put_off(30):
        print("ready", flush=True)
        time.sleep(1)
    time.sleep(60)
"""


def terminated(
    tmp_path: Path, run: str, signals: int = 1, words: tuple[str, ...] = ("fake",)
) -> tuple[str, str]:
    """What a verb prints that gets SIGTERM when it is ready, to stdout and to stderr."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("    {run}", run).replace("{words}", str(list(words))))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        time.sleep(0.2)  # what comes after it has begun
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == EXIT_TERMINATED == 143, errors
    return ready + out, errors


def test_a_verb_ends_in_order(tmp_path: Path) -> None:
    assert terminated(tmp_path, WAITS) == (
        "ready\nin order\n",
        f"tpo fake: terminated; {GOES_ON}\n",
    )


def test_a_second_signal_does_not_disturb_the_end(tmp_path: Path) -> None:
    assert terminated(tmp_path, WAITS, signals=2)[0] == "ready\nin order\n"


def test_busy_outside_python_it_ends_at_the_limit_with_its_children(tmp_path: Path) -> None:
    out, errors = terminated(tmp_path, COMPILES)
    assert errors == f"tpo: ended 0.5 s after SIGTERM; {GOES_ON}\n"
    child, ends = int(out.split()[1]), time.monotonic() + 10
    while _runs(child) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    """Whether there is such a process; one that ended and that nobody asked about does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (PUTS_OFF, f"tpo fake: terminated; saved after step 7; {GOES_ON}\n"),
        (PUTS_OFF_TOO_LONG, f"tpo: ended 0.2 s after SIGTERM; {GOES_ON}\n"),
        (NEVER_ASKS, f"tpo fake: terminated; {GOES_ON}\n"),
    ],
    ids=["saves", "takes too long", "ends by itself"],
)
def test_it_can_be_put_off_as_long_as_there_is_something_to_save(
    tmp_path: Path, run: str, said: str
) -> None:
    assert terminated(tmp_path, run)[1] == said


def test_tpo_launch_lets_its_verb_save(tmp_path: Path) -> None:
    """And waits for it, longer than it would for itself."""
    said = f"tpo fake: terminated; saved after step 7; {GOES_ON}\n"
    assert terminated(tmp_path, PUTS_OFF, words=("launch", "--", "fake")) == ("ready\n", said)
