"""The traffic of a step that the real TPU compiler made, in a child process; no TPU is needed."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tpo_jax.planning.traffic import Traffic, read_computations, read_traffic

# In the quick tests, tests/cli/test_plan.py reads the traffic of what the compiler made.
pytestmark = pytest.mark.slow

TPU_PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

slices = 2
topology = topologies.get_topology_desc(
    platform="tpu", topology_name="v5e:2x2", num_slices=slices
)
devices = sorted(topology.devices, key=lambda device: (device.slice_index, device.id))
mesh = Mesh(np.array(devices).reshape(2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
spec = NamedSharding(mesh, P("a", "b"))
offload = jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[], names_which_can_be_offloaded=["x"],
    offload_src="device", offload_dst="pinned_host",
)

def loss(weights, x):
    def body(x, w):
        x = checkpoint_name(x, "x")
        return jnp.tanh(x @ w), None
    x, _ = jax.lax.scan(jax.checkpoint(body, policy=offload), x, weights)
    return jnp.sum(x.astype(jnp.float32) ** 2)

weights = jax.ShapeDtypeStruct(
    (6, 1024, 1024), jnp.bfloat16, sharding=NamedSharding(mesh, P(None, "b"))
)
x = jax.ShapeDtypeStruct((4096, 1024), jnp.bfloat16, sharding=NamedSharding(mesh, P(("a", "b"))))
compiled = jax.jit(jax.grad(loss)).lower(weights, x).compile()
open(sys.argv[1], "w").write(compiled.as_text())
"""


@pytest.fixture(scope="module")
def tpu_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six layers of 1024 x 1024, sharded over four chips of each of two slices."""
    if find_spec("libtpu") is None:
        pytest.skip("libtpu, which holds the TPU compiler, is not installed")
    path = tmp_path_factory.mktemp("tpu") / "step.txt"
    variables = {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", TPU_PROGRAM, str(path)],
        env={**os.environ, **variables},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return path.read_text()


def test_a_tpu_step(tpu_text):
    layers, matrix = 6, 1024 * 1024 * 2
    traffic = read_traffic(tpu_text, mesh_shape={"a": 2, "b": 4})
    assert traffic.unknown_loops == ()
    kept = layers * (4096 // 8) * 1024 * 2
    assert traffic_of(traffic, "to-host") == traffic_of(traffic, "from-host") == kept
    # Between the slices each chip exchanges its quarter of every gradient: 2 * 1/2 of it.
    assert traffic.dcn_bytes == layers * matrix / 4
    # Inside a slice every weight is gathered forward and backward, and every gradient summed. The
    # compiler may do either in a way that takes more: a whole all-reduce, and in libtpu 0.0.42 each
    # weight is gathered three times (18 gathers in its text).
    gathered = 2 * layers * matrix * 3 / 4
    summed = layers * matrix * 3 / 4
    assert gathered + summed <= traffic.ici_bytes <= 1.15 * (1.5 * gathered + 2 * summed)


def test_a_tpu_chain_has_one_beginning(tpu_text):
    """What the reading of chains rests on: the first part of each has the flag -1."""
    computations, _ = read_computations(tpu_text)
    lines = [made.line for part in computations.values() for made in part.values()]
    chained = [line for line in lines if "async_collective_fusion_config" in line]
    chains = {line.split('chain_id="')[1].split('"')[0] for line in chained}
    begun = [line for line in chained if '"flag_start":"-1"' in line]
    assert len(begun) == len(chains)


def traffic_of(traffic: Traffic, kind: str) -> float:
    return sum(found.bytes for found in traffic.transfers if found.kind == kind)
