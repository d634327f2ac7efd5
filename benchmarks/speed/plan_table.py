"""What published models take on TPU slices, a compile a row, beside the most that they should take.

    python -m benchmarks.speed.plan_table               # half an hour on two cores
    python -m benchmarks.speed.plan_table --only=72b    # rows whose name holds this

Prints a markdown table, a row as soon as it is known. Needs the TPU compiler
(`pip install .[plan]`) and no TPU. Exit status 1 if a row takes more than its bound.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

GIB = 2**30
HEADER = (
    "| work | slice | mesh | remat | peak, GiB | in use, GiB | bound | step, s | utilisation "
    "| bound by | compile, s | whole, s |"
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One plan, and the most GiB a chip may need for it (None: it must fit 0.9 of the chip)."""

    name: str
    config: str
    slices: str
    frames: int
    pairs: int
    answer_tokens: int = 512
    context: int = 1
    remat: str = "full"
    model: str | None = None  # default: what the config's checkpoint is named after
    bound: float | None

    @property
    def options(self) -> list[str]:
        """Of `tpo plan`."""
        return [
            f"--config={self.config}",
            *([f"--model={self.model}"] if self.model else []),
            f"--topology={self.slices}",
            f"--frames={self.frames}",
            f"--pairs={self.pairs}",
            f"--answer-tokens={self.answer_tokens}",
            f"--config.mesh.context={self.context}",
            f"--config.train.remat={self.remat}",
        ]


VIDEO = "llava_video_7b_tpo"
LONGVA = "longva_7b_tpo"
POD = "v5p:4x4x4"
ROWS = (
    Row(
        name="LLaVA-Video-7B, 128 frames", config=VIDEO, slices=POD, frames=128, pairs=64, bound=12
    ),
    Row(name="LLaVA-Video-7B, 32 frames", config=VIDEO, slices=POD, frames=32, pairs=64, bound=6),
    Row(
        name="LLaVA-Video-7B, 128 frames",
        config=VIDEO,
        slices="v5e:4x4",
        frames=128,
        pairs=16,
        remat="offload",
        bound=14,
    ),
    Row(
        name="LongVA-7B, 1,000 frames",
        config=LONGVA,
        slices=POD,
        frames=1000,
        pairs=8,
        context=8,
        bound=20,
    ),
    Row(
        name="LongVA-7B, 1,000 frames",
        config=LONGVA,
        slices="v6e:8x8",
        frames=1000,
        pairs=8,
        context=8,
        bound=None,
    ),
    Row(
        name="LongVA-7B, 3,000 frames",
        config=LONGVA,
        slices=POD,
        frames=3000,
        pairs=4,
        context=16,
        bound=48,
    ),
    Row(
        name="LLaVA-Video-72B, 64 frames",
        config=VIDEO,
        model="llava_video_72b",
        slices=POD,
        frames=64,
        pairs=64,
        bound=48,
    ),
)


def plan(row: Row) -> tuple[dict[str, Any], float]:
    """(what `tpo plan --json` says of the slice, seconds until it said it).

    Raises:
      RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "tpo_jax.cli.main", "plan", "--json", *row.options]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    (found,) = json.loads(done.stdout)["slices"]
    return found, time.monotonic() - start


def bound_gib(row: Row, found: dict[str, Any]) -> float:
    """The most that the row may take: what is asked, and never more than is usable of the chip."""
    usable = found["memory"]["usable_bytes"] / GIB
    return usable if row.bound is None else min(row.bound, usable)


def is_kept(row: Row, found: dict[str, Any]) -> bool:
    """Whether the row stays within its bound."""
    memory = found["memory"]
    return not memory["refused"] and memory["peak_bytes"] / GIB <= bound_gib(row, found)


def cells(row: Row, found: dict[str, Any], seconds: float) -> Iterator[str]:
    """The cells of a row."""
    memory, modelled = found["memory"], found["time"]
    mesh = " ".join(f"{axis}={size}" for axis, size in found["mesh"].items() if size > 1)
    yield f"{row.name}, {row.pairs} pairs, answers of {row.answer_tokens}"
    yield from (row.slices, mesh, row.remat)
    yield f"{memory['peak_bytes'] / GIB:.1f}{' (refused)' if memory['refused'] else ''}"
    alive = memory["sizes"].get("alive")
    yield "" if alive is None else f"{alive / GIB:.1f}"
    yield f"{bound_gib(row, found):.1f}{'' if is_kept(row, found) else ' NOT kept'}"
    if modelled is None:
        yield from ("", "", "")
    else:
        yield f"{modelled['seconds']:.3g}"
        yield f"{modelled['utilisation']:.0%}"
        yield modelled["bound_by"]
    yield f"{found['compile_seconds']['compile']:.0f}"
    yield f"{seconds:.0f}"


def main() -> int:
    """Compiles the rows, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name holds TEXT")
    only = parser.parse_args().only.lower()
    print(HEADER)
    print("|---" * (HEADER.count("|") - 1) + "|", flush=True)
    kept = True
    for row in ROWS:
        if only not in f"{row.name} {row.slices}".lower():
            continue
        found, seconds = plan(row)
        kept &= is_kept(row, found)
        print(f"| {' | '.join(cells(row, found, seconds))} |", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
