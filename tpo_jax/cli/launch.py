"""`tpo launch`: a verb in processes of their own, and a line and an exit code when one is lost.

When a process is killed, or the contact between hosts is lost, JAX ends a process from C++: it can
neither say why nor choose its exit code. This parent does.
"""

import argparse
import math
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence

from ml_collections import ConfigDict

from tpo_jax import termination
from tpo_jax.cli.main import EXIT_INPUT_ERROR, main
from tpo_jax.errors import InputError
from tpo_jax.parallel.distributed import COORDINATOR, PROCESS, PROCESSES

EXIT_AGAIN = 75  # EX_TEMPFAIL: the same command, run again, goes on where this one was
MEANINGS = {
    signal.SIGKILL: "killed from outside, or the host has no memory left",
    signal.SIGABRT: "lost contact with another process, or failed in XLA; its own words are above",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.usage = "tpo launch [--processes N] -- VERB [options]"
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="how many on this machine, as one run (default: %(default)s)",
    )
    parser.add_argument("command", nargs="+", metavar="VERB", help="the verb and its options")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Exit status: that of the verb; 75 where a process was killed or lost contact with\n"
        "another one, which the same command mends. SIGTERM goes on to the verb.\n\n"
        "  on each host of a pod:\n    tpo launch -- train --config=llava_video_7b_tpo\n"
        "  two processes on this machine:\n    tpo launch --processes 2 -- train"
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> int:
    """Run the verb to its end."""
    if args.processes < 1:
        raise InputError(f"--processes={args.processes}: must be 1 or more")
    processes = start_processes(args.command, args.processes)

    def pass_on(number: int, _: object) -> None:
        for process in processes:
            process.send_signal(number)

    # However long the verb takes: it keeps its own limit.
    with termination.put_off(math.inf):
        signal.signal(signal.SIGTERM, pass_on)
        signal.signal(signal.SIGINT, pass_on)
        return wait_for(processes)


def start_processes(command: Sequence[str], count: int) -> list[subprocess.Popen]:
    """`tpo` with these arguments, so many times as one run; alone as the environment has it."""
    places: list[dict[str, str]] = [{}]
    if count > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        places = [
            {COORDINATOR: address, PROCESSES: str(count), PROCESS: str(number)}
            for number in range(count)
        ]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tpo_jax.cli.launch", *command], env={**os.environ, **place}
        )
        for place in places
    ]


def wait_for(processes: Sequence[subprocess.Popen]) -> int:
    """The exit status of them all; says what became of those that did not end by themselves."""
    codes = [process.wait() for process in processes]
    for number, code in enumerate(codes):
        if code < 0:
            which = f"process {number}" if len(codes) > 1 else "the process"
            name = signal.Signals(-code)
            told = f" ({MEANINGS[name]})" if name in MEANINGS else ""
            print(f"tpo launch: {which} ended by {name.name}{told}", file=sys.stderr)
    if EXIT_INPUT_ERROR in codes:  # what is to be mended is not mended by running it again
        return EXIT_INPUT_ERROR
    if any(code < 0 or code == EXIT_AGAIN for code in codes):
        return EXIT_AGAIN
    return max(codes)


def run_verb(arguments: Sequence[str]) -> int:
    """`tpo` in a process of its own.

    An orderly end of JAX waits for all processes. After an error others may wait for this one
    instead: it goes at once, so that its exit code is known and they end too.
    """
    termination.install()
    try:
        code = main(arguments)
    except Exception:  # a bug, or a device that was lost
        traceback.print_exc()
        code = 1
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(run_verb(sys.argv[1:]))
