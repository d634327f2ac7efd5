"""Our preference step beside the authors' in plain PyTorch: pairs a second and peak memory.

The same small model (weights exported by us and read by PyTorch), frames, tokens, answers, loss,
optimizer, fp32, one machine. Ours: a pair is one row, reference log-probs are made beforehand.
Theirs: see `torch_step.py`. First both train for a few steps and must tell the same losses. Then
steps of one and the other take turns, and each turn gives a ratio. Peak memory is that of a process
that does nothing else, less what it takes once its libraries are imported; ours takes the compiled
step from a cache, so that compiling does not count.

On both sides a decoder layer is computed again going backward, as trainers of large models do and
`config.train.remat` has it; with `--recompute=no` on neither.

    python -m benchmarks.speed.step_vs_torch
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

# jax and torch are imported where they are used: a process that tells its memory has one of them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Losses of both sides agree to this part: rounding, after a few updates.
AGREEMENT = 1e-4
RATE_STEPS = 1000
MEGABYTE = 1e6


def model_json(arguments: argparse.Namespace) -> dict[str, Any]:
    """The demo's make-up with more tokens a frame; decoder and tower share the FLOPs as in a 7B."""
    from tpo_jax.models.presets import demo_model_json

    made = demo_model_json(arguments.vocabulary)
    made |= {
        "hidden_size": arguments.width,
        "intermediate_size": 3 * arguments.width,
        "num_hidden_layers": arguments.layers,
        "num_attention_heads": arguments.width // 64,
        "num_key_value_heads": arguments.width // 128,
        "mm_hidden_size": 128,
        "tie_word_embeddings": False,
    }
    made["vision_config"] |= {
        "patch_size": 14,
        "image_size": arguments.image,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "layers_used": 4,
    }
    return made


def random_pairs(arguments: argparse.Namespace, tokens_per_video: int) -> dict[str, np.ndarray]:
    """Pairs of random text and noise, as rows: prompts of different length, uneven answers."""
    from data_pipelines.batches import fitting_shape, make_row, stack
    from data_pipelines.prompts import Prompt

    rng = np.random.default_rng(0)
    draw = lambda count: rng.integers(3, arguments.vocabulary, count).astype(np.int32)  # noqa: E731
    prompts, answers = [], []
    for _ in range(arguments.pairs):
        before, after = 14, int(rng.integers(30, 50))
        length = before + tokens_per_video + after
        index = np.full(length, -1, np.int32)
        index[before : before + tokens_per_video] = np.arange(tokens_per_video)
        prompts.append(Prompt(tokens=draw(length), visual_index=index))
        answers.append([draw(int(rng.integers(20, 61))).tolist() for _ in range(2)])
    shape = fitting_shape(
        [len(prompt.tokens) for prompt in prompts], [len(a) for pair in answers for a in pair]
    )
    rows = [make_row(p, a, shape) for p, a in zip(prompts, answers, strict=True)]
    batch = stack(rows)
    size = (arguments.pairs, arguments.frames, arguments.image, arguments.image, 3)
    return batch | {"frames": rng.integers(0, 256, size, np.uint8)}


def prepare(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Writes what both sides read; returns the FLOPs that each side's step takes."""
    import jax

    from tpo_jax.interop.writer import write_checkpoint
    from tpo_jax.models.checkpoint_config import config_from_json
    from tpo_jax.models.video_lmm import abstract_model, init_params
    from tpo_jax.preference.reference import make_reference_step
    from tpo_jax.training.optimizer import OptimizerConfig, make_schedule

    content = model_json(arguments)
    config = config_from_json(content)
    params = init_params(config, 0)
    write_checkpoint(folder, config=config, params=params, json=content, dtype="float32")
    batch = random_pairs(arguments, config.tokens_per_video(arguments.frames))
    graph, _ = abstract_model(config)
    score = jax.jit(make_reference_step(graph, jax.numpy.dtype("float32")))
    batch["reference_logprobs"] = np.asarray(score(params, batch))
    np.savez(folder / "batch.npz", allow_pickle=False, **batch)
    optimizer = OptimizerConfig(learning_rate=1e-4, warmup_ratio=0.001)
    schedule = make_schedule(optimizer, RATE_STEPS)
    recipe = {
        "beta": 0.2,
        "sft_weight": 1.0,
        "clip_norm": optimizer.clip_norm,
        "learning_rate": optimizer.learning_rate,
        "warmup_ratio": optimizer.warmup_ratio,
        "rates": [float(schedule(step)) for step in range(RATE_STEPS)],
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return count_flops(config, batch, recompute=arguments.recompute == "yes")


def count_flops(config: Any, batch: dict[str, np.ndarray], *, recompute: bool) -> dict[str, float]:
    """FLOPs of the matrix products of one step, by side; scores of attention are T by T.

    A backward pass takes twice its forward, and once more for what is computed again: the decoder
    with `recompute`, and our head always. Nothing goes back through the tower.
    """
    vision, language = config.vision, config.language
    patches, frames = vision.side**2, batch["frames"].shape[1]
    per_layer = 4 * vision.width**2 + 2 * vision.width * vision.mlp_width
    tower = 2 * patches * (vision.patch_size**2 * 3 * vision.width)
    tower += vision.layers_used * (2 * patches * per_layer + 4 * patches**2 * vision.width)
    projector = 2 * patches * (vision.width * language.width + language.width**2)
    q_width = language.heads * language.head_width
    kv_width = language.kv_heads * language.head_width
    per_layer = 2 * language.width * (q_width + kv_width) + 3 * language.width * language.mlp_width

    def decoder(tokens: int) -> float:
        return language.layers * (2 * tokens * per_layer + 4 * tokens**2 * q_width)

    head = 2 * language.width * language.vocab_rows
    pairs, row = batch["tokens"].shape
    answers, places = batch["answers"].shape[1:]
    prompt = row - answers * places
    video = frames * projector
    passes = 4 if recompute else 3
    ours = frames * tower + 3 * video + passes * decoder(row) + 4 * answers * places * head
    one = prompt + places
    policy = frames * tower + 3 * (video + one * head) + passes * decoder(one)
    theirs = 2 * (policy + frames * tower + video + decoder(one) + one * head)
    return {"ours": pairs * ours, "theirs": pairs * theirs}


def our_side(folder: Path, *, recompute: bool, dtype: str = "float32") -> Callable[[], float]:
    """A function that does one step of ours and returns its loss."""
    import jax
    import jax.numpy as jnp

    from tpo_jax.interop.reader import read_checkpoint
    from tpo_jax.models.remat import Remat
    from tpo_jax.models.video_lmm import abstract_model
    from tpo_jax.preference.losses import TPOLoss
    from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen
    from tpo_jax.training.step import init_state, make_train_step

    checkpoint = read_checkpoint(folder)
    config = checkpoint.config
    remat: Remat = "full" if recompute else "none"
    config = replace(config, language=replace(config.language, remat=remat))
    graph, _ = abstract_model(config)
    recipe = json.loads((folder / "recipe.json").read_text())
    optimizer = make_optimizer(
        OptimizerConfig(
            learning_rate=recipe["learning_rate"],
            warmup_ratio=recipe["warmup_ratio"],
            clip_norm=recipe["clip_norm"],
        ),
        RATE_STEPS,
    )
    loss = TPOLoss(beta=recipe["beta"], sft_weight=recipe["sft_weight"], sft_reduction="token_mean")
    step = jax.jit(make_train_step(graph, loss, optimizer, jnp.dtype(dtype)), donate_argnums=0)
    params = jax.tree.map(jnp.asarray, checkpoint.params)
    state = init_state(*split_frozen(params, ("vision",)), optimizer)
    batch = {name: jnp.asarray(array) for name, array in np.load(folder / "batch.npz").items()}

    def one_step() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return one_step


def their_side(
    folder: Path,
    attention: str,
    *,
    recompute: bool,
    device: str = "cpu",
    dtype: str = "float32",
) -> Callable[[], float]:
    """The same for PyTorch."""
    from benchmarks.speed.torch_step import make_torch_step, two_rows

    config = json.loads((folder / "config.json").read_text())
    recipe = json.loads((folder / "recipe.json").read_text())
    batch = dict(np.load(folder / "batch.npz"))
    rows = two_rows(batch, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    rows = {name: array.to(device) for name, array in rows.items()}
    step = make_torch_step(
        config, folder, attention, recipe, recompute=recompute, device=device, dtype=dtype
    )
    return lambda: step(rows)


def seconds(step: Callable[[], float]) -> float:
    """Of one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def memory_now(field: Literal["VmRSS", "VmHWM"]) -> float:
    """Bytes of this process that are resident, or were at most; Linux only.

    Not `ru_maxrss`: a process starts with that of its parent.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def tell_memory(arguments: argparse.Namespace) -> None:
    """In a process of its own: three steps, and the peak less what the libraries take."""
    folder, recompute = arguments.folder, arguments.recompute == "yes"
    if arguments.only == "ours":
        import jax

        import tpo_jax.interop.reader
        import tpo_jax.training.step  # noqa: F401

        jax.block_until_ready(jax.numpy.zeros(1) + 1)
    else:
        import torch

        import benchmarks.speed.torch_step  # noqa: F401

        torch.set_num_threads(arguments.threads)
    idle = memory_now("VmRSS")
    if arguments.only == "ours":
        step = our_side(folder, recompute=recompute)
    else:
        step = their_side(folder, arguments.attention, recompute=recompute)
    for _ in range(3):
        step()
    print(json.dumps({"idle": idle, "peak": memory_now("VmHWM")}))


def measure_memory(side: str, folder: Path, attention: str, arguments: argparse.Namespace) -> float:
    """Bytes that a side's steps take at most."""
    command = [sys.executable, "-m", "benchmarks.speed.step_vs_torch", f"--only={side}"]
    command += [f"--folder={folder}", f"--attention={attention}", f"--threads={arguments.threads}"]
    command += [f"--recompute={arguments.recompute}"]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    runs = 2 if side == "ours" else 1  # the first compiles, and fills the cache
    for _ in range(runs):
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
    seen = json.loads(done.stdout.splitlines()[-1])
    return seen["peak"] - seen["idle"]


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints losses, speed and memory of both sides."""
    flops = prepare(arguments, folder)
    import torch

    from benchmarks.speed.torch_step import ATTENTIONS

    torch.set_num_threads(arguments.threads)
    recompute = arguments.recompute == "yes"
    attention = arguments.attention
    if attention == "fastest":
        took = {}
        for name in ATTENTIONS:
            step = their_side(folder, name, recompute=recompute)
            step()
            took[name] = min(seconds(step) for _ in range(2))
            print(f"PyTorch with attention {name}: {took[name]:.2f} s a step")
        attention = min(took, key=lambda name: took[name])
    batch = np.load(folder / "batch.npz")
    print(
        f"{arguments.pairs} pairs of {arguments.frames} frames, rows of {batch['tokens'].shape[1]} "
        f"tokens ({np.sum(batch['branch'] >= 0, axis=1).tolist()} without padding), answers of "
        f"{batch['answer_mask'].sum(axis=2).astype(int).tolist()}"
    )

    ours = our_side(folder, recompute=recompute)
    theirs = their_side(folder, attention, recompute=recompute)
    for number in range(1, 5):
        found, expected = ours(), theirs()
        print(f"loss of step {number}: ours {found:.6f}, theirs {expected:.6f}")
        if not abs(found - expected) <= AGREEMENT * abs(expected):
            sys.exit("the two sides do not compute the same")
    turns = [(seconds(ours), seconds(theirs)) for _ in range(arguments.turns)]
    mine, other = ([turn[side] for turn in turns] for side in (0, 1))
    print(f"seconds a step: ours {spread(mine)}, theirs {spread(other)}")
    for name, values in (("ours", mine), ("theirs", other)):
        rate = arguments.pairs / statistics.median(values)
        speed = flops[name] / statistics.median(values) / 1e9
        print(f"{name}: {rate:.3f} pairs a second, {speed:.1f} GFLOP/s")
    print(f"ratio of pairs a second: {spread([b / a for a, b in turns])}")
    print(f"ratio that the FLOPs alone would give: {flops['theirs'] / flops['ours']:.2f}")

    memory = {
        side: measure_memory(side, folder, attention, arguments) for side in ("ours", "theirs")
    }
    print(
        f"peak memory: ours {memory['ours'] / MEGABYTE:.0f} MB, theirs "
        f"{memory['theirs'] / MEGABYTE:.0f} MB, ours is {memory['ours'] / memory['theirs']:.2f} of "
        "theirs"
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=8, help="a step")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--image", type=int, default=112, help="edge of a frame in pixels")
    parser.add_argument("--width", type=int, default=384, help="of the decoder")
    parser.add_argument("--layers", type=int, default=6, help="of the decoder")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--recompute",
        choices=("yes", "no"),
        default="yes",
        help="decoder layers going backward, on both sides; default: %(default)s",
    )
    parser.add_argument("--attention", default="fastest", help="PyTorch's; default: %(default)s")
    parser.add_argument(
        "--only", choices=("ours", "theirs"), help="tell its memory; needs --folder"
    )
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        tell_memory(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


if __name__ == "__main__":
    main()
