"""Runs one function over many items in worker processes that stop when they should."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from data_pipelines.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[Result, None, None]:
    """Yields `function(item)` of every item as it gets done, in any order.

    Close the generator to stop early: it waits for what is running and drops the rest.

    Args:
      function: picklable when `workers` is above 1.
      items: picklable likewise.
      workers: spawned processes; 1 runs everything in this process.

    Raises:
      InputError: a worker process died.
    """
    if workers == 1:
        yield from map(function, items)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent)
    try:
        for future in as_completed([pool.submit(function, item) for item in items]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process died (out of memory, or a decoder crashed); run again to continue, "
            "with workers=1 to see at which file"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed; a process pool does not do that by itself."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
