"""A profile of some steps of a run, for xprof or TensorBoard's profile page."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax

PROFILE_FOLDER = "profile"
STEP_ANNOTATION = "train"


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Which steps to profile: "10:13" from step 10 to 13, both with it; "" none."""

    steps: str = ""

    def __post_init__(self) -> None:
        """ValueError when it is no such window."""
        _ = self.window

    @property
    def window(self) -> tuple[int, int] | None:
        """The first step and the last."""
        if not self.steps:
            return None
        found = re.fullmatch(r"(\d+):(\d+)", self.steps)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(
                f"steps is {self.steps!r}; give the first and the last step to profile, as in 10:13"
            )
        return int(found[1]), int(found[2])


class Profile:
    """Traces the steps of the window into a folder; a run that ends inside it stops the trace."""

    def __init__(self, folder: Path, config: ProfileConfig):
        self._folder = folder
        self._first, self._last = config.window or (0, 0)
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around all that belongs to a step, until its result is there; steps count from 1."""
        if number == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        with jax.profiler.StepTraceAnnotation(STEP_ANNOTATION, step_num=number):
            yield
        if number == self._last:
            self._stop()

    def _stop(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
