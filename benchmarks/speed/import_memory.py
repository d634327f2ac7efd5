"""How much host memory `tpo import` and `tpo export` take, and whether they lose a bit.

Writes a checkpoint of random bf16 weights in the shape of a published model, imports it, exports it
again, each in a process of its own, and compares every tensor's bytes. On a CPU a parameter lies in
the host's memory while it is gathered from its layers: extra is the most memory the process had,
less the largest parameter, less what the same process has after importing its libraries.

    python -m benchmarks.speed.import_memory --layers=2 --folder=/tmp/import_memory
    python -m benchmarks.speed.import_memory --layers=28  # LLaVA-Video 7B: 48 GB of disk
"""

import argparse
import hashlib
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors.numpy import save_file

from tpo_jax.interop import keys
from tpo_jax.interop.reader import open_checkpoint
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.presets import preset_json
from tpo_jax.models.video_lmm import abstract_model

SHARD_BYTES = 2 * 10**9
GIGABYTE = 1e9


def write_random(folder: Path, content: dict) -> None:
    """A checkpoint of random bf16 weights, a shard at a time."""
    _, shapes = abstract_model(config_from_json(content))
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(content))
    shard: dict[str, np.ndarray] = {}
    places = {}
    number, size = 1, 0

    def flush() -> None:
        nonlocal number, size
        name = f"model-{number:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()
        number, size = number + 1, 0

    for path, leaf in keys.flat_paths(shapes):
        for name, shape in keys.their_tensors(path, leaf.shape):
            # Random bits with the exponent of small numbers: they do not compress.
            bits = rng.integers(0, 2**16, shape, np.uint16) & 0xBFFF | 0x3000
            shard[name] = bits.view(jnp.bfloat16)
            size += shard[name].nbytes
            if size > SHARD_BYTES:
                flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def digests(folder: Path) -> dict[str, str]:
    """A digest of every tensor."""
    tensors = open_checkpoint(epath.Path(folder)).tensors
    return {
        name: hashlib.sha256(tensor.read().view(np.uint8).data).hexdigest()
        for name, tensor in tensors.items()
    }


def run(*command: str) -> tuple[float, float]:
    """(seconds, peak gigabytes of resident memory) of a process."""
    start = time.monotonic()
    script = (
        "import resource, subprocess, sys;"
        "code = subprocess.run(sys.argv[1:]).returncode;"
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, *command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    kilobytes = int(done.stdout.split("peak")[-1])
    return time.monotonic() - start, kilobytes * 1024 / GIGABYTE


def main() -> None:
    """Run it and print a line a stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="llava_video_7b")
    parser.add_argument("--layers", type=int, default=2, help="of the decoder")
    parser.add_argument("--folder", type=Path, default=Path("runs/import_memory"))
    arguments = parser.parse_args()
    work = arguments.folder
    shutil.rmtree(work, ignore_errors=True)
    source, imported, exported = work / "source", work / "imported", work / "exported"
    content = preset_json(arguments.preset) | {"num_hidden_layers": arguments.layers}
    write_random(source, content)
    tokenizer = Path(__file__).parents[2] / "tpo_jax/assets/demo_base/tokenizer.json"
    shutil.copy(tokenizer, source / "tokenizer.json")  # export completes what stands beside it
    tensors = open_checkpoint(epath.Path(source)).tensors
    size = sum(tensor.size for tensor in tensors.values()) / GIGABYTE
    largest = max(tensor.size for tensor in tensors.values()) / GIGABYTE
    _, shapes = abstract_model(config_from_json(content))
    parameter = max(math.prod(leaf.shape) * 2 for _, leaf in keys.flat_paths(shapes)) / GIGABYTE
    expected = digests(source)
    _, idle = run("-c", "import tpo_jax.cli.import_checkpoint, jax; jax.devices()")
    print(f"{len(tensors)} tensors, {size:.2f} GB, the largest {largest:.2f} GB")
    tpo = ("-m", "tpo_jax.cli.main")
    seconds, peak = run(*tpo, "import", str(source), str(imported))
    extra = peak - parameter - idle
    print(
        f"import: {seconds:.0f} s, peak {peak:.2f} GB ({idle:.2f} GB before it begins, the largest "
        f"parameter {parameter:.2f} GB), extra {extra:.2f} GB "
        f"= {extra / largest:.2f} x the largest tensor"
    )
    seconds, peak = run(*tpo, "export", str(exported), f"--checkpoint={imported}")
    print(f"export: {seconds:.0f} s, peak {peak:.2f} GB")
    found = digests(exported)
    same = sum(found.get(name) == digest for name, digest in expected.items())
    print(
        f"tensors that came back bit-equal: {same} of {len(expected)}, others: {len(found) - same}"
    )
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIGABYTE
    print(f"(this script itself: peak {own:.2f} GB)")
    if same != len(expected) or len(found) != len(expected):
        sys.exit(1)


if __name__ == "__main__":
    main()
