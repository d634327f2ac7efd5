"""A step compiled for a slice that is not there: what the process of `compiler.py` does.

python -m tpo_jax.planning.aot RESULT.json < pickled (Work, MeshConfig, Slice)
"""

import inspect
import json
import os
import pickle
import re
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from tpo_jax.errors import InputError
from tpo_jax.generation.engine import FRAME_BUCKET
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.generation.unshared import generate_each
from tpo_jax.models.video_lmm import abstract_model
from tpo_jax.parallel.mesh import MeshConfig, batch_sharding, lay_mesh, mesh_sizes
from tpo_jax.parallel.rules import pad_vocabulary
from tpo_jax.planning.compiler import Compiled
from tpo_jax.planning.hardware import Slice
from tpo_jax.planning.traffic import read_traffic
from tpo_jax.planning.work import (
    SCHEDULE_STEPS,
    Work,
    abstract_batch,
    abstract_params,
    abstract_state,
    device_bytes,
    slice_mesh,
)
from tpo_jax.preference.reference import make_reference_step
from tpo_jax.training.loop import jit_step
from tpo_jax.training.optimizer import make_optimizer
from tpo_jax.training.step import TrainState, make_train_step
from tpo_jax.training.xla_options import options_refused, tpu_options

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
# How a program is refused that needs more HBM than there is: with its arguments, or for what it
# holds beside them.
TOO_LARGE = re.compile(r"memory space hbm\. Used ([\d.]+)([KMG]?)B? of ", re.IGNORECASE)
TOO_LARGE_INSIDE = re.compile(r"HLO temporaries \(([\d.]+)([KMG]?)B?\) exceeds available HBM")
END_TOKEN, TEMPERATURE = 1, 0.7  # of generation; neither has a part in memory or time


def compile_here(work: Work, mesh: MeshConfig, where: Slice) -> Compiled:
    """Compiles the very step, from shapes alone. Needs `compiler.VARIABLES` in the environment.

    Raises:
      InputError: there is no such slice, or the work does not fit the mesh.
    """
    sizes = slice_mesh(mesh, where)
    devices = lay_slice(sizes, where)
    known, lowered, lower_seconds = lower(work, devices)
    shape = mesh_sizes(sizes)
    start = time.monotonic()
    try:
        with options_refused(work.xla_options):
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(str(error), arguments=sum(known.values()) - known["gradients"])
        if needed is None:
            raise
        return Compiled(
            mesh=shape,
            peak_bytes=needed,
            refused=True,
            known=known,
            sizes={},
            traffic=None,
            seconds={"lower": lower_seconds, "compile": time.monotonic() - start},
        )
    seconds = {"lower": lower_seconds, "compile": time.monotonic() - start}
    memory = compiled.memory_analysis()
    names = ("argument", "output", "temp", "alias")
    found = {name: int(getattr(memory, f"{name}_size_in_bytes")) for name in names}
    found["alive"] = int(memory.peak_memory_in_bytes)
    host = [int(getattr(memory, f"host_{name}_size_in_bytes")) for name in names[:3]]
    try:
        # A loop that ends by what it computes is that of generation, a token a turn.
        text = compiled.as_text()
        traffic = read_traffic(text, mesh_shape=shape, unknown_trips=max(work.answer_tokens - 1, 1))
    except jax.errors.JaxRuntimeError:  # some versions of libtpu cannot be read by some of jax
        traffic = None
    return Compiled(
        mesh=shape,
        peak_bytes=peak_bytes(memory),
        refused=False,
        known=known,
        host_bytes=sum(host),
        sizes=found,
        traffic=traffic,
        seconds=seconds,
    )


def needed_bytes(refusal: str, *, arguments: int) -> int | None:
    """What a program with such arguments needs of HBM; None if refused for another reason."""
    for pattern, beside in ((TOO_LARGE, 0), (TOO_LARGE_INSIDE, arguments)):
        if found := pattern.search(refusal):
            return int(float(found[1]) * UNITS.get(found[2].upper(), 1)) + beside
    return None


def peak_bytes(memory: Any) -> int:
    """The most HBM that is taken at once, arguments and results among it."""
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def lay_slice(mesh: MeshConfig, where: Slice) -> Mesh:
    """The mesh over the devices of slices that are not there; `data` goes between slices.

    Raises:
      InputError: the compiler knows no such slice.
    """
    try:
        devices = topologies.get_topology_desc(
            platform="tpu", topology_name=where.topology_name, **where.topology_options
        ).devices
    except Exception as error:  # libtpu has several ways to say so
        raise InputError(
            f"{where.name}: the TPU compiler knows no such slice ({str(error).splitlines()[0]})"
        ) from error
    return lay_mesh(mesh, devices, where.slices)


def lower(work: Work, mesh: Mesh) -> tuple[dict[str, int], Any, float]:
    """(bytes known beforehand, the lowered step, seconds it took)."""
    start = time.monotonic()
    graph, _ = abstract_model(pad_vocabulary(work.config, mesh))
    dtype = jnp.dtype(work.compute_dtype)
    batch = abstract_batch(work, mesh)
    known = {"parameters": 0, "optimizer": 0, "gradients": 0, "batch": device_bytes(batch)}
    with jax.set_mesh(mesh):
        if work.step == "train":
            state: TrainState = abstract_state(work, mesh)
            optimizer = make_optimizer(work.optimizer, SCHEDULE_STEPS)
            train = make_train_step(graph, work.loss, optimizer, dtype, accumulate=work.accumulate)
            options = tpu_options(work.xla_options, mesh)
            shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
            lowered = jit_step(train, shardings, options).lower(state, batch)
            known["parameters"] = device_bytes(state.params)
            known["optimizer"] = device_bytes(state.opt_state)
            known["gradients"] = device_bytes(state.trained)
        else:
            # Unused parameters are kept: they are on the devices all the same.
            params = abstract_params(work, mesh)
            known["parameters"] = device_bytes(params)
            if work.step == "reference":
                step = make_reference_step(graph, dtype)
                lowered = jax.jit(step, keep_unused=True).lower(params, batch)
            else:
                lowered = lower_generate(work, mesh, graph, params, batch)
    return known, lowered, time.monotonic() - start


def lower_generate(work: Work, mesh: Mesh, graph: Any, params: Any, rows: Any) -> Any:
    """Prompts that share nothing, spread over the mesh as rows are: the most they can take."""
    config = pad_vocabulary(work.config, mesh)
    frames = -(-work.frames // FRAME_BUCKET) * FRAME_BUCKET
    visual = (frames * config.tokens_per_frame + 1, config.language.width)
    generate = jax.jit(inspect.unwrap(generate_each), static_argnums=(0, 1, 2, 3), keep_unused=True)
    return generate.lower(
        graph,
        config,
        END_TOKEN,
        SamplingConfig(max_new_tokens=work.answer_tokens, temperature=TEMPERATURE),
        params,
        jax.ShapeDtypeStruct(visual, jnp.dtype(work.compute_dtype)),
        rows,
        jax.ShapeDtypeStruct((work.pairs,), jnp.uint32, sharding=batch_sharding(mesh)),
    )


def main() -> None:
    """Reads what to compile from stdin, and writes what came of it to the file that is named."""
    work, mesh, where = pickle.load(sys.stdin.buffer)

    def end_with_parent() -> None:
        # Returns when the other end is closed. Not `sys.stdin.read`, whose lock an exit waits for.
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    content: dict[str, Any]
    try:
        content = asdict(compile_here(work, mesh, where))
    except InputError as error:
        content = {"input_error": str(error)}
    result = Path(sys.argv[1])
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.replace(result)
    # Threads of the compiler and the one that reads stdin are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
