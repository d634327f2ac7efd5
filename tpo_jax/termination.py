"""SIGTERM, by which a machine says that it is about to be taken away.

    install()                       # once, when the process begins
    with put_off(25) as asked:      # while there is something to save
        while training:
            ...
            if asked():
                save()
                raise Terminated("saved after step 12")

Outside `put_off` SIGTERM raises `Terminated` in the main thread, as Ctrl-C raises
KeyboardInterrupt. Python lets a handler run between two of its own instructions only, so nothing of
this happens while XLA compiles: a thread that the system wakes ends the process when the limit is
over, whatever the main thread does. That is as safe as SIGKILL, which every stage survives.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# 128 + the signal's number, as shells say it. Launchers start a process again that ends with it.
EXIT_TERMINATED = 128 + signal.SIGTERM
LIMIT_SECONDS = 10.0
GOES_ON = "running the same command again continues where it stopped"


class Terminated(BaseException):
    """SIGTERM came; says what was saved, or nothing. No Exception, so that no handler of errors
    holds it up.
    """


_asked = threading.Event()
_limit_seconds = LIMIT_SECONDS
_is_put_off = False


def install() -> None:
    """From now on SIGTERM ends this process in order. For the main thread."""
    # JAX's own service would take the signal over, once several hosts have found each other.
    os.environ.setdefault("JAX_ENABLE_PREEMPTION_SERVICE", "false")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _raise_or_note)
    threading.Thread(target=_end_at_limit, args=[reading], daemon=True).start()


@contextmanager
def put_off(limit_seconds: float) -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM raises nothing; what is yielded says whether it came, to this host.

    The process ends `limit_seconds` after the signal, even if the block is not at its end. Raises
    Terminated at the end of a block that did not do so itself.
    """
    global _is_put_off, _limit_seconds
    _is_put_off, _limit_seconds = True, limit_seconds
    try:
        yield _asked.is_set
    finally:
        _is_put_off, _limit_seconds = False, LIMIT_SECONDS
    if _asked.is_set():  # after the block looked for the last time
        raise Terminated


def _raise_or_note(number: int, frame: FrameType | None) -> None:
    came_before = _asked.is_set()
    _asked.set()
    if not (_is_put_off or came_before):  # a second one does not disturb the end
        raise Terminated


def _end_at_limit(reading: int) -> None:
    """Sleeps until SIGTERM comes, even to a process that is busy outside Python; then counts."""
    while signal.SIGTERM not in os.read(reading, 1):
        pass
    came, limit = time.monotonic(), _limit_seconds
    while time.monotonic() - came < limit:
        time.sleep(0.1)
    said = f"tpo: ended {limit:g} s after SIGTERM; {GOES_ON}\n"
    os.write(sys.stderr.fileno(), said.encode())  # the main thread may hold the lock of `print`
    for child in multiprocessing.active_children():  # loaders and decoders would outlive it
        child.kill()
    os._exit(EXIT_TERMINATED)
