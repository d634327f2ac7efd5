"""Our preference step beside the authors' in plain PyTorch with flash attention, on one GPU.

Pairs, model, loss and the two ways to lay out a pair are those of `step_vs_torch.py`; here products
are in bf16 with fp32 masters and moments on both sides, and each side runs in a process of its own,
since each takes the GPU's memory for itself. Our attention is the blockwise
one, which is exact; theirs is PyTorch's flash kernel, or the script fails. Losses of the first
steps must agree as far as bf16 lets them.

It prints seconds a step, tokens a second, the share of the chip's bf16 rate that the step's matrix
products use, and peak memory.

    pip install '.[cuda]' torch transformers
    python -m benchmarks.speed.step_on_gpu
    python -m benchmarks.speed.step_on_gpu --device=cpu --width=128 --layers=2 --frames=4 --image=56
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.step_vs_torch import our_side, prepare, seconds, their_side

# Dense bf16 products, FLOP/s, by a part of the device's name; from NVIDIA's data sheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}
WARM_STEPS = 3
AGREEMENT = 0.02  # of a loss, between two ways to compute in bf16
GIGABYTE = 1e9


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One side's losses, seconds a step, peak bytes and device; in a process of its own."""
    recompute = arguments.recompute == "yes"
    step = (
        our_side(arguments.folder, recompute=recompute, dtype="bfloat16")
        if arguments.only == "ours"
        else their_side(
            arguments.folder,
            "sdpa_causal",
            recompute=recompute,
            device="cuda" if arguments.device == "gpu" else "cpu",
            dtype="bfloat16",
        )
    )
    losses = [step() for _ in range(WARM_STEPS)]
    took = [seconds(step) for _ in range(arguments.steps)]
    return {"losses": losses, "seconds": took} | device_facts(arguments.only, arguments.device)


def device_facts(side: str, device: str) -> dict[str, Any]:
    """Name of the device, and the most of its memory that was in use; None on a CPU."""
    if side == "ours":
        import jax

        (first, *_) = jax.devices()
        stats = first.memory_stats() if device == "gpu" else None
        return {"name": first.device_kind, "peak": stats and stats["peak_bytes_in_use"]}
    import torch

    if device == "cpu":
        return {"name": "cpu", "peak": None}
    return {"name": torch.cuda.get_device_name(), "peak": torch.cuda.max_memory_allocated()}


def run_side(side: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What `measure` finds in a child process."""
    command = [sys.executable, "-m", "benchmarks.speed.step_on_gpu", f"--only={side}"]
    command += [f"--folder={folder}", f"--device={arguments.device}"]
    command += [f"--recompute={arguments.recompute}", f"--steps={arguments.steps}"]
    platform = "cuda" if arguments.device == "gpu" else "cpu"
    environment = os.environ | {"JAX_PLATFORMS": platform, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{side} did not run: see above")
    return json.loads(done.stdout.splitlines()[-1])


def peak_rate(name: str, given: float | None) -> float | None:
    """FLOP/s of the device, if known."""
    if given:
        return given * 1e12
    return next((rate for part, rate in PEAKS.items() if part in name), None)


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints both sides and their ratio."""
    flops = prepare(arguments, folder)
    batch = np.load(folder / "batch.npz")
    row, answers = batch["tokens"].shape[1], batch["answers"].shape[2]
    # A pair is one row to us, and two of the prompt with one answer each to them.
    tokens = {"ours": arguments.pairs * row, "theirs": arguments.pairs * 2 * (row - answers)}
    found = {side: run_side(side, folder, arguments) for side in ("ours", "theirs")}
    mine, other = found["ours"], found["theirs"]
    for number, (a, b) in enumerate(zip(mine["losses"], other["losses"], strict=True), 1):
        print(f"loss of step {number}: ours {a:.4f}, theirs {b:.4f}")
        if not abs(a - b) <= AGREEMENT * abs(b):
            sys.exit("the two sides do not compute the same")
    print(f"{mine['name']}, {arguments.pairs} pairs, rows of {row} tokens, bf16")
    rate = peak_rate(other["name"], arguments.peak)
    for side, seen in found.items():
        middle = statistics.median(seen["seconds"])
        low, high = min(seen["seconds"]), max(seen["seconds"])
        used = f"{flops[side] / middle / rate:.1%} of the peak rate" if rate else "peak not known"
        memory = f"{seen['peak'] / GIGABYTE:.2f} GB" if seen["peak"] else "not told"
        print(
            f"{side}: {middle:.3f} s a step ({low:.3f} to {high:.3f}), "
            f"{tokens[side] / middle:,.0f} tokens a second, {used}, peak memory {memory}"
        )
    ratio = statistics.median(other["seconds"]) / statistics.median(mine["seconds"])
    print(
        f"ratio of pairs a second: {ratio:.2f}; FLOPs alone: {flops['theirs'] / flops['ours']:.2f}"
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: a trial")
    parser.add_argument("--pairs", type=int, default=4, help="a step")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--image", type=int, default=336, help="edge of a frame in pixels")
    parser.add_argument("--width", type=int, default=2048, help="of the decoder")
    parser.add_argument("--layers", type=int, default=8, help="of the decoder")
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--steps", type=int, default=10, help="that are timed")
    parser.add_argument("--recompute", choices=("yes", "no"), default="yes")
    parser.add_argument("--peak", type=float, help="bf16 TFLOP/s of the device, if not known")
    parser.add_argument("--only", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


if __name__ == "__main__":
    main()
