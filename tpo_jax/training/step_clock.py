"""Where the time of training goes: to steps, and to what keeps them from running."""

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax

PARTS = ("compile", "input", "step", "save")
SECONDS_FIELDS = tuple(f"{part}_seconds" for part in (*PARTS, "wall"))
# Fields of the metrics that differ between two runs of the same config.
TIMING_FIELDS = (*SECONDS_FIELDS, "tokens_per_second_per_chip", "mfu")


class StepClock:
    """Seconds by part, from one line of the metrics to the next.

    `step` is computing; `compile`, `input` and `save` are the time that no step ran because of
    them; `wall` is all time, with what is none of these.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._since = time.perf_counter()

    def add(self, part: str, seconds: float) -> None:
        """So many seconds more of a part; less than none is none."""
        self._seconds[part] += max(seconds, 0.0)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time that the block takes to a part."""
        began = time.perf_counter()
        yield
        self.add(part, time.perf_counter() - began)

    def take(self) -> dict[str, float]:
        """The fields of the metrics since this was called last; they begin again at 0."""
        now = time.perf_counter()
        wall, self._since = now - self._since, now
        taken = {f"{part}_seconds": seconds for part, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(PARTS, 0.0)
        return taken | {"wall_seconds": wall}


class TimedStep:
    """A jitted step that is compiled before it runs, so that the clock tells the two apart."""

    def __init__(self, jitted: Any, clock: StepClock):
        self._jitted, self._clock = jitted, clock
        self._compiled: dict[Any, Any] = {}
        self._watcher = ThreadPoolExecutor(max_workers=1)
        self._began = 0.0
        self._ended: Future[float] = Future()

    def start(self, state: Any, batch: Mapping[str, jax.Array]) -> tuple[Any, Any]:
        """What the step returns, which may still be computed. It compiles once a shape of batch."""
        shapes = tuple((name, array.shape) for name, array in sorted(batch.items()))
        if shapes not in self._compiled:
            with self._clock.measure("compile"):
                self._compiled[shapes] = self._jitted.lower(state, batch).compile()
        self._began = time.perf_counter()
        state, metrics = self._compiled[shapes](state, batch)
        # By a thread: whoever started the step does something else meanwhile.
        self._ended = self._watcher.submit(_time_of_end, metrics)
        return state, metrics

    def wait(self) -> float:
        """Seconds that the step took; if it ended before this call, the rest was input."""
        asked = time.perf_counter()
        ended = self._ended.result()
        self._clock.add("input", asked - ended)
        self._clock.add("step", ended - self._began)
        return ended - self._began


def _time_of_end(metrics: Any) -> float:
    jax.block_until_ready(metrics)
    return time.perf_counter()


def time_spent(history: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The seconds of all lines of metrics by field; lines of older versions have none."""
    spent = dict.fromkeys(SECONDS_FIELDS, 0.0)
    for line in history:
        for name in SECONDS_FIELDS:
            spent[name] += line.get(name, 0.0)
    return spent


def goodput(spent: Mapping[str, float]) -> float:
    """The share of all time that was spent in steps."""
    wall = spent["wall_seconds"]
    return spent["step_seconds"] / wall if wall else 0.0


def without_timing(line: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a step that are the same in every run of the same config."""
    return {name: value for name, value in line.items() if name not in TIMING_FIELDS}
