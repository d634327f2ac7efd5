"""The clock of a run: what keeps a step from running is told apart from the step."""

import time
from collections.abc import Mapping

import jax
import numpy as np

from tpo_jax.training.step_clock import StepClock, TimedStep, goodput, time_spent

SLOW = 0.2


class SlowStep:
    """A step that takes SLOW seconds on the device, and is compiled in as long."""

    def __init__(self) -> None:
        self.compiled = 0

    def lower(self, state: object, batch: object) -> "SlowStep":
        return self

    def compile(self):
        time.sleep(SLOW)
        self.compiled += 1
        wait = jax.jit(lambda x: jax.pure_callback(_sleep, x, x))
        return lambda state, batch: (state, wait(batch["tokens"]))


def _sleep(x: np.ndarray) -> np.ndarray:
    time.sleep(SLOW)
    return np.asarray(x)


def batch(rows: int) -> Mapping[str, jax.Array]:
    return {"tokens": jax.numpy.zeros(rows)}


def test_compiling_computing_and_waiting_are_told_apart() -> None:
    clock, slow = StepClock(), SlowStep()
    timed = TimedStep(slow, clock)
    timed.start(0, batch(2))
    timed.wait()
    first = clock.take()
    assert first["compile_seconds"] >= SLOW
    timed.start(0, batch(2))
    time.sleep(3 * SLOW)  # input that comes after the step has ended
    assert timed.wait() >= SLOW
    second = clock.take()
    assert second["compile_seconds"] == 0 and second["save_seconds"] == 0
    assert second["input_seconds"] > 0
    assert second["input_seconds"] + second["step_seconds"] >= 3 * SLOW
    assert second["input_seconds"] + second["step_seconds"] <= second["wall_seconds"]
    timed.start(0, batch(3))
    timed.wait()
    assert slow.compiled == 2  # once a shape
    spent = time_spent([first, second])
    assert spent["step_seconds"] == first["step_seconds"] + second["step_seconds"]
    assert goodput(spent) == spent["step_seconds"] / spent["wall_seconds"]


def test_lines_of_an_older_version_have_no_time() -> None:
    assert goodput(time_spent([{"step": 1.0, "loss": 0.5}])) == 0
