"""How a long stage shows how far it is: a bar on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 10.0
# The remaining time comes from the steps of the last so many seconds. Long, since one video or one
# training step may take a minute.
SECONDS_OF_SPEED = 600.0


class Update(Protocol):
    """Says that `done` of the stage's items are done, and what it is busy with."""

    def __call__(self, done: int, detail: str = "") -> None: ...


@contextmanager
def stage_progress(title: str, total: int, *, stream: TextIO | None = None) -> Iterator[Update]:
    """Shows the progress of a stage while the block runs.

    On a terminal this is one bar with elapsed and remaining time. Otherwise (a log file, a pipe) it
    is a plain line at most every ten seconds and one at the end, also when the block raises.

        with stage_progress("frames", len(videos)) as update:
            for number, video in enumerate(videos, start=1):
                ...
                update(number, video.name)

    Args:
      title: name of the stage.
      total: number of items, at least 0.
      stream: where to write; None means stderr.

    Yields:
      `update(done, detail="")`; `done` includes what an earlier run did. The remaining time is
      computed from what was done since the first call: that one holds what an earlier run did, and
      what is done once, such as compiling.
    """
    stream = stream if stream is not None else sys.stderr
    if stream.isatty():
        with _bar(stream) as bar:
            task = bar.add_task(title, total=total, detail="")

            def update_bar(done: int, detail: str = "") -> None:
                bar.update(task, completed=done, detail=detail)

            yield update_bar
        return

    lines = _PlainLines(title=title, total=total, stream=stream)
    whole = False
    try:
        yield lines.update
        whole = True
    finally:
        lines.finish(whole)


def warn(text: str) -> None:
    """Writes a line to stderr; a bar that is shown there moves down."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def duration_text(seconds: float) -> str:
    """Returns a duration as people say it: "8 s", "3 min 20 s", "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _bar(stream: TextIO) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=Console(file=stream),
        speed_estimate_period=SECONDS_OF_SPEED,
    )


@dataclass(kw_only=True)
class _PlainLines:
    """Writes one line at most every SECONDS_BETWEEN_LINES."""

    title: str
    total: int
    stream: TextIO
    done: int = 0
    first: tuple[int, float] | None = None  # items and time of the first update
    began: float = field(init=False)
    last_line: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.last_line = time.monotonic()

    def update(self, done: int, detail: str = "") -> None:
        self.done = done
        now = time.monotonic()
        self.first = self.first or (done, now)
        if now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        parts = [f"{duration_text(now - self.began)} elapsed"]
        first, since = self.first
        if done > first:
            left = (now - since) / (done - first) * (self.total - done)
            parts.append(f"about {duration_text(max(left, 0))} left")
        self._write(", ".join([*parts, detail] if detail else parts))

    def finish(self, whole: bool) -> None:
        verb = "done in" if whole else "stopped after"
        self._write(f"{verb} {duration_text(time.monotonic() - self.began)}")

    def _write(self, text: str) -> None:
        print(f"{self.title}: {self.done}/{self.total}, {text}", file=self.stream, flush=True)
