"""The TPU compiler, in a process of its own for each step.

libtpu holds it and runs it on any Linux x86-64 machine. It sets itself up once a process, and wants
no other beside it. So each compile has its own process (`aot.py`): killed, it leaves nothing behind
that stops the next, and several may run at once.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import MeshConfig
from tpo_jax.planning.hardware import Slice
from tpo_jax.planning.traffic import Traffic, Transfer
from tpo_jax.planning.work import Work

# Another libtpu in another process is no reason to refuse; no cloud is asked what this machine is;
# nothing is logged; and jax's own devices, of which none is used, are the host's.
VARIABLES = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler says of a step; bytes are those of one device.

    Attributes:
      mesh: sizes by axis.
      peak_bytes: of HBM; what the program would need if it was refused.
      refused: the compiler found no way to stay inside the memory of the device.
      known: bytes of "parameters", "optimizer", "gradients", "batch", from shapes and shardings.
      host_bytes: of the host's memory, for what is offloaded.
      sizes: "argument", "output", "temp", "alias" as the compiler has them, and "alive", the most
        in use at one moment: the peak without the holes between buffers. Empty if refused.
      traffic: None if refused, or where this libtpu cannot print the program.
      seconds: of "lower" and "compile".
    """

    mesh: dict[str, int]
    peak_bytes: int
    refused: bool
    known: dict[str, int]
    host_bytes: int = 0
    sizes: dict[str, int]
    traffic: Traffic | None
    seconds: dict[str, float]

    @property
    def parts(self) -> dict[str, int]:
        """What the peak is made of: what is known, and activations, which are the rest."""
        return {**self.known, "activations": self.peak_bytes - sum(self.known.values())}


Compile = Callable[[Work, MeshConfig, Slice], Compiled]


def check_compiler() -> None:
    """Raises InputError when libtpu is not installed."""
    if find_spec("libtpu") is None:
        raise InputError(
            "the TPU compiler is not installed: pip install tpo_jax[plan] (Linux on x86-64)"
        )


def compile_in_child(work: Work, mesh: MeshConfig, where: Slice) -> Compiled:
    """`aot.compile_here` in a child process that ends when this one does.

    Raises:
      InputError: libtpu is missing, there is no such slice, or the work does not fit the mesh.
      RuntimeError: the compiler failed for another reason than the size.
    """
    check_compiler()
    with tempfile.TemporaryDirectory(prefix="tpo_plan_") as folder:
        result, errors = Path(folder) / "result.json", Path(folder) / "errors.txt"
        with errors.open("wb") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "tpo_jax.planning.aot", str(result)],
                env={
                    **os.environ,
                    **VARIABLES,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for this process, which then ends the child
            )
        assert child.stdin is not None
        try:
            # Left open: the child takes its closing for the end of this process.
            child.stdin.write(pickle.dumps((work, mesh, where)))
            child.stdin.flush()
            status = child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdin.close()
        if not result.exists():
            said = errors.read_text(errors="replace").strip()[-3000:]
            raise RuntimeError(f"the compiler for {where.name} ended with status {status}: {said}")
        content = json.loads(result.read_text())
    if "input_error" in content:
        raise InputError(content["input_error"])
    return compiled_from_json(content)


def compiled_from_json(content: dict[str, Any]) -> Compiled:
    """What `dataclasses.asdict` made of it, and JSON of that."""
    traffic = content["traffic"]
    if traffic is not None:
        transfers = [{**one, "axes": tuple(one["axes"])} for one in traffic["transfers"]]
        traffic = Traffic(
            transfers=tuple(Transfer(**one) for one in transfers),
            unknown_loops=tuple(traffic["unknown_loops"]),
        )
    return Compiled(**{**content, "traffic": traffic})
