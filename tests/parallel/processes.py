"""Real processes with four (or so) CPU devices each, for tests of several hosts."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tpo_jax.parallel.distributed import COORDINATOR, PROCESS, PROCESSES

MAIN = "import sys; from tpo_jax.cli.main import main; sys.exit(main())"  # `tpo`
# The same computation, compiled in a part of the time.
QUICK_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"
)


def environment(devices: int, **others: str) -> dict[str, str]:
    """Of a process with so many CPU devices."""
    flags = f"{QUICK_FLAGS} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "NPROC": "32", "XLA_FLAGS": flags, **others}


def free_address() -> str:
    """Of a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def run_processes(
    command: Sequence[str], *, processes: int, devices: int = 4, seconds: float = 240
) -> list[str]:
    """What each of so many processes of one run prints; all must end well."""
    address = free_address()
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment(devices, **place_of(number, processes, address)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        told = [one.communicate(timeout=seconds) for one in running]
    finally:
        for one in running:
            one.kill()
    for one, (out, error) in zip(running, told, strict=True):
        assert one.returncode == 0, out[-1000:] + error[-3000:]
    return [out for out, _ in told]


def place_of(number: int, processes: int, address: str) -> Mapping[str, str]:
    """What tells a process which of how many it is."""
    return {COORDINATOR: address, PROCESSES: str(processes), PROCESS: str(number)}
