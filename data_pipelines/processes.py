"""Runs one function over many items in worker processes that stop when they should."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

from data_pipelines.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Undone:
    """What stands for a result that never came: the worker was too slow, or it crashed."""

    reason: str


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    *,
    seconds: float | None = None,
) -> Generator[tuple[Item, Result | Undone], None, None]:
    """Yields every item and `function(item)` as it gets done, in any order.

    A worker that takes longer than `seconds` for an item is killed, and one that crashes is
    replaced: the item is `Undone`, and the others go on. Close the generator to stop early.

    Args:
      function: picklable when worker processes are used.
      items: picklable likewise.
      workers: spawned processes. 1 without `seconds` runs everything in this process, where a crash
        is a crash.
      seconds: that an item may take.

    Raises:
      InputError: a worker was killed from outside, as systems do that run out of memory.
    """
    if workers == 1 and seconds is None:
        for item in items:
            yield item, function(item)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPool(max_workers=workers, context=spawn, initializer=_end_with_parent)
    try:
        # Typed as what `as_completed` gives back.
        futures: dict[Future[Result], Item] = {
            pool.schedule(function, args=[item], timeout=seconds): item for item in items
        }
        for future in as_completed(futures):
            item = futures[future]
            try:
                result = future.result()
            except TimeoutError:
                yield (
                    item,
                    Undone(f"not done after {seconds:g} s; raise the time limit to try again"),
                )
            except ProcessExpired as died:
                if died.exitcode == -signal.SIGKILL:
                    raise InputError(
                        f"{item}: a worker process was killed, as happens when memory runs out; "
                        "run again to continue, with fewer workers"
                    ) from died
                yield item, Undone(f"the decoder crashed (exit status {died.exitcode})")
            else:
                yield item, result
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed; a process pool does not do that by itself."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
