"""Bad input in bulk: every verb reads damaged files, and must say so in a line.

    python -m benchmarks.reliability.fuzz --cases 2000 --seed 0
    python -m benchmarks.reliability.fuzz --case 1234 --seed 0  # one of them again, and all of it

A case passes when the verb ends with 0, 1 (a verdict) or 2 with one line on stderr that names the
file or the key; without a traceback or a hang; with nothing half-written under its final name;
with nothing opened outside of the folders it was given, and with nothing unpickled.
"""

import argparse
import collections
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import TimeoutError
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pebble import ProcessExpired, ProcessPool

from tpo_jax.cli.progress import stage_progress

if TYPE_CHECKING:
    from benchmarks.reliability.fuzz_case import Result

# The first case of a process compiles.
SECONDS = 120.0
# A process grows with the models that it has compiled.
CASES_A_PROCESS = 250
MEMORY = 12 * 2**30


def set_up(folder: str) -> None:
    """What a process does before its first case: JAX on the CPU, and what is compiled kept."""
    os.environ.update(
        JAX_PLATFORMS="cpu",
        TPU_SKIP_MDS_QUERY="1",
        JAX_COMPILATION_CACHE_DIR=f"{folder}/compiled",
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.1",
    )
    # What asks for all memory there is gets a MemoryError, not the machine.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # Processes of a verb's own are allowed.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    from tpo_jax.cli import doctor, frames

    # Here, in this process: the pool that `tpo frames` starts for its time limit takes seconds.
    frames.TIME_LIMIT = None  # type: ignore[assignment]
    # The others look at the machine, and not at what they are given.
    doctor.CHECKS = {name: doctor.CHECKS[name] for name in ("checkpoint", "free disk")}


def prepare(folder: str) -> None:
    """Makes the base in a process of its own."""
    set_up(folder)
    from benchmarks.reliability.fuzz_base import make_base

    base = Path(folder) / "base"
    if not base.exists():
        make_base(base)


def one(number: int, seed: int, folder: str) -> "Result":
    """Runs a case."""
    from benchmarks.reliability.fuzz_case import run_case

    return run_case(number, seed, Path(folder) / "base", Path(folder) / "work")


def run_cases(numbers: list[int], seed: int, folder: str, processes: int) -> list["Result"]:
    """Runs cases, in processes that are ended when one takes too long; results in their order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPool(1, initializer=None, context=context) as pool:
        pool.schedule(prepare, args=[folder]).result()
    with (
        ProcessPool(
            processes,
            max_tasks=CASES_A_PROCESS,
            initializer=set_up,
            initargs=[folder],
            context=context,
        ) as pool,
        stage_progress("cases", len(numbers)) as update,
    ):
        futures = [pool.schedule(one, args=[n, seed, folder], timeout=SECONDS) for n in numbers]
        results: list[Result] = []
        failed = 0
        for number, future in zip(numbers, futures, strict=True):
            try:
                results.append(future.result())
            except (TimeoutError, ProcessExpired) as error:
                results.append(_lost(number, error))
            if results[-1].faults:
                failed += 1
                tell(results[-1])
            update(len(results), f"{failed} failed")
    return results


def _lost(number: int, error: BaseException) -> "Result":
    from benchmarks.reliability.fuzz_case import CRASHED, Result

    fault = f"took more than {SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
    return Result(
        number=number, kind="?", verb="?", told="", status=CRASHED, line="", faults=(fault,),
        seconds=SECONDS,
    )  # fmt: skip


def tell(result: "Result") -> None:
    """Prints a case."""
    head = f"case {result.number}: tpo {result.verb}, {result.kind}: {result.told!r}"
    said = "".join(f"\n  {fault}" for fault in result.faults) or "\n  passed"
    print(f"{head}\n  exit status {result.status}: {result.line}{said}", flush=True)


def main() -> int:
    """The command; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--processes", type=int, default=2, help="(default: 2)")
    parser.add_argument("--folder", help="keeps the base run here, for the next time")
    parser.add_argument("--json", help="write all results to this file")
    args = parser.parse_args()
    numbers = list(range(args.first, args.first + args.cases))
    numbers = numbers if args.case is None else [args.case]
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(Path(args.folder or temporary).absolute())
        Path(folder).mkdir(exist_ok=True)
        began = time.monotonic()
        results = run_cases(numbers, args.seed, folder, min(args.processes, len(numbers)))
        seconds = time.monotonic() - began
    if args.case is not None:
        tell(results[0])
    failed = [result for result in results if result.faults]
    for title, key in (
        ("verb", lambda result: result.verb),
        ("input", lambda result: result.kind),
        ("exit status", lambda result: str(result.status)),
    ):
        counts = collections.Counter(map(key, results))
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
    print(f"{len(results)} cases, {len(failed)} failed, {seconds:.0f} s")
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(result) for result in results], indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
