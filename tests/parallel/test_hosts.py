"""Two real processes, four devices each: every one gives its rows, and all make one batch."""

import os
import socket
import subprocess
import sys

SCRIPT = """
import sys
import jax
import numpy as np

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from tpo_jax.parallel.mesh import MeshConfig, host_rows, make_mesh, place_batch

rng = np.random.default_rng(0)
whole = {
    "tokens": rng.integers(0, 99, (8, 16), np.int32),
    "answers": rng.integers(0, 99, (8, 2, 4), np.int32),
    "frames": rng.integers(0, 255, (8, 4, 2, 2, 3), np.uint8),
}
known = []
for axes in ({}, {"fsdp": 4, "context": 2}, {"data": 2, "fsdp": 4}, {"fsdp": 1, "context": 8}):
    mesh = make_mesh(MeshConfig(**axes))
    rows = host_rows(mesh, 8)
    known.append(len(rows))
    placed = place_batch(mesh, {name: array[rows] for name, array in whole.items()})
    for name, array in placed.items():
        assert array.shape == whole[name].shape
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), whole[name][shard.index])
    # A number that needs the rows of both.
    weights = np.arange(8)[:, None] + 1
    with jax.set_mesh(mesh):
        total = jax.jit(lambda tokens: (tokens * weights).sum())(placed["tokens"])
    assert int(total) == int((whole["tokens"] * weights).sum())
print("rows", known)
"""


def run_processes(script: str) -> list[str]:
    """The last line that each of two processes prints."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "NPROC": "32",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, address, str(number)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        told = [one.communicate(timeout=120) for one in running]
    finally:
        for one in running:
            one.kill()
    for one, (_, error) in zip(running, told, strict=True):
        assert one.returncode == 0, error[-3000:]
    return [out.splitlines()[-1] for out, _ in told]  # gloo prints too


def test_each_host_gives_its_rows() -> None:
    # With the tokens of a row on both hosts, both need all rows.
    assert run_processes(SCRIPT) == ["rows [4, 4, 4, 8]"] * 2
