"""Workers that are too slow or crash, and the others, which go on."""

import os
import signal
import time

import pytest

from data_pipelines.errors import InputError
from data_pipelines.processes import Undone, run_all


def work(item: str) -> str:
    if item == "hangs":
        time.sleep(60)
    if item == "crashes":
        os.abort()
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return item.upper()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_others_go_on(workers: int) -> None:
    found = dict(run_all(work, ["a", "crashes", "b", "hangs", "c"], workers, seconds=3.0))
    assert {item: found[item] for item in "abc"} == {"a": "A", "b": "B", "c": "C"}
    assert isinstance(found["hangs"], Undone) and "not done after 3 s" in found["hangs"].reason
    assert isinstance(found["crashes"], Undone) and "crashed" in found["crashes"].reason


def test_a_worker_killed_from_outside_ends_it() -> None:
    with pytest.raises(InputError, match="killed: a worker process was killed"):
        list(run_all(work, ["killed"], 2))


def test_in_this_process() -> None:
    assert list(run_all(work, ["a", "b"], 1)) == [("a", "A"), ("b", "B")]


def test_closing_stops_the_workers() -> None:
    results = run_all(work, ["a", "hangs", "hangs"], 2)
    assert next(results) == ("a", "A")
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 30
