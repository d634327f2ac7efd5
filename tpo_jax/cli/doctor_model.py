"""Checks of `tpo doctor` that use a model: its checkpoint, disk for it, a step, parity."""

import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import synthetic
from data_pipelines.artefacts import in_bucket
from data_pipelines.batches import fitting_shape, make_row, stack
from data_pipelines.prompts import Prompt
from data_pipelines.synthetic_events import draw_events
from data_pipelines.video import decode_frames, read_index
from tpo_jax.attention import row_multiple
from tpo_jax.cli.doctor_findings import FAIL, OK, WARN, Finding, Request
from tpo_jax.cli.doctor_machine import existing_folder
from tpo_jax.cli.verify import case_batch, logits_error
from tpo_jax.interop.golden_case import VIDEO_PLACE, GoldenCase
from tpo_jax.interop.reader import read_checkpoint, read_config
from tpo_jax.interop.verify import BF16_LOGITS_BOUND, measure_layers
from tpo_jax.loading import ASSETS, LoadedModel, find_checkpoint, load
from tpo_jax.models.checkpoint_config import model_config
from tpo_jax.models.video_lmm import VideoLMMConfig, abstract_model
from tpo_jax.parallel.mesh import MeshConfig, make_mesh, place_batch
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.preference.reference import make_reference_step
from tpo_jax.training.loop import FIRST_STEP_TOLERANCE, init_sharded_state
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen
from tpo_jax.training.step import make_train_step

SHIPPED = "demo_base"
GIGABYTE = 10**9
# fp32 parameters and two moments; two checkpoints are kept while a third is written.
BYTES_A_PARAMETER = 12
CHECKPOINTS = 3
FRAMES = 4
# More devices than one host has are not trained on yet.
DEVICES = 8


# ------------------------------------------------------------------------- a checkpoint, and disk


def check_checkpoint(request: Request) -> Finding:
    """The checkpoint's config.json is understood, and says how many parameters there are."""
    name = request.checkpoint or SHIPPED
    number = count_parameters(name)
    said = f"{number / 1e9:.3g}B" if number >= 1e9 else f"{number / 1e6:.3g}M"
    return Finding(status=OK, found=f"{name}: {said} parameters")


def count_parameters(name: str) -> int:
    """Parameters of a checkpoint, by its config.json.

    Raises:
      InputError: there is none, or it asks for what is not implemented.
    """
    _, shapes = abstract_model(model_config(read_config(find_checkpoint(name))))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def check_free_disk(request: Request) -> Finding:
    """Room for the checkpoints of a training run."""
    if in_bucket(request.run_dir):
        return Finding(status=OK, found=f"{request.run_dir}: a bucket has no bound")
    needed = CHECKPOINTS * BYTES_A_PARAMETER * count_parameters(request.checkpoint or SHIPPED)
    folder = existing_folder(request.run_dir)
    free = shutil.disk_usage(folder).free
    found = (
        f"{free / GIGABYTE:,.1f} GB free at {folder}; {CHECKPOINTS} training checkpoints of this "
        f"model take up to {needed / GIGABYTE:,.2g} GB"
    )
    if free < needed:
        mend = "give a larger disk with --run-dir, or delete old runs"
        return Finding(status=FAIL, found=found, mend=mend)
    if free < 2 * needed:
        mend = "frames and exports come on top: see `tpo frames --dry-run`"
        return Finding(status=WARN, found=found, mend=mend)
    return Finding(status=OK, found=found)


# ------------------------------------------------------------------------------------------ video


def check_video(request: Request) -> Finding:
    """A clip of two seconds is encoded, and decoded frame by frame."""
    rng = np.random.default_rng(0)
    scene = synthetic.draw_scene(rng)
    shown = [synthetic.Shown(event=draw_events(rng, 1)[0], start=0.0, end=2.0)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        synthetic.write_video(path, scene, shown)
        index = read_index(path)
        frames = list(decode_frames(index, range(len(index.times_F))))
    drawn = synthetic.draw(scene, shown, float(index.times_F[-1]))
    off = float(np.abs(frames[-1].astype(float) - drawn).mean())
    found = f"{len(frames)} frames of H.264 written and decoded, off by {off:.1f} of 255 on average"
    if off > 20:
        mend = "its decoder is broken: pip install --force-reinstall av"
        return Finding(status=FAIL, found=found, mend=mend)
    return Finding(status=OK, found=found)


# --------------------------------------------------------------------------- a step, and parity


def check_training_step(request: Request) -> Finding:
    """One step of the shipped model on random frames, over the devices as training uses them."""
    began = time.monotonic()
    mesh = make_mesh(MeshConfig(), devices=min(len(jax.devices()), DEVICES))
    seen = one_step(load(SHIPPED, mesh=mesh), mesh)
    return step_finding(seen, time.monotonic() - began)


def one_step(
    model: LoadedModel,
    mesh: jax.sharding.Mesh,
    *,
    compiler_options: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Metrics of the first step, the reference's log-probs computed beforehand, in fp32."""
    row = pair_row(model, row_multiple(mesh.devices.flat[0].platform, 1))
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    host = {name: np.repeat(array, ways, axis=0) for name, array in row.items()}
    fp32, optimizer = jnp.dtype("float32"), make_optimizer(OptimizerConfig(learning_rate=1e-4), 1)
    score = jax.jit(make_reference_step(model.graph, fp32), compiler_options=compiler_options)
    step = make_train_step(model.graph, TPOLoss(), optimizer, fp32)
    with jax.set_mesh(mesh):
        reference = score(model.params, place_batch(mesh, host))
    host["reference_logprobs"] = np.asarray(reference)
    state = init_sharded_state(*split_frozen(model.params, ("vision",)), optimizer, mesh)
    compiled = jax.jit(step, compiler_options=compiler_options)
    with jax.set_mesh(mesh):
        _, metrics = compiled(state, place_batch(mesh, host))
    return {name: float(value) for name, value in metrics.items()}


def step_finding(seen: Mapping[str, float], seconds: float) -> Finding:
    """Whether the first step began at the reference and has a finite gradient."""
    found = (
        f"loss on pairs {seen['dpo_loss']:.5f} (ln 2 at the first step), norm of the gradient "
        f"{seen['grad_norm']:.3g}, {seconds:.0f} s with compiling"
    )
    off = abs(seen["dpo_loss"] - math.log(2))
    # What is not a number is inside no bound.
    if off <= FIRST_STEP_TOLERANCE["float32"] and 0 < seen["grad_norm"] < math.inf:
        return Finding(status=OK, found=found)
    mend = "this hardware, its driver or jax computes wrongly: see libtpu and parity"
    return Finding(status=FAIL, found=found, mend=mend)


def check_parity(request: Request) -> Finding:
    """bf16 on the default device beside fp32 on the CPU, as `tpo verify --dtype bfloat16`."""
    case = shipped_case()
    error = logits_error(measure_layers(case, case_batch(case), jnp.dtype("bfloat16")))
    kind = jax.devices()[0].device_kind
    found = (
        f"bf16 on {kind} against fp32 on the CPU: logits off by {error:.2%} (RMS), bound "
        f"{BF16_LOGITS_BOUND:.0%}"
    )
    if not error < BF16_LOGITS_BOUND:
        mend = "`tpo verify CASE --dtype bfloat16` says in which layer it begins (docs/parity.md)"
        return Finding(status=FAIL, found=found, mend=mend)
    return Finding(status=OK, found=found)


def shipped_case() -> GoldenCase:
    """The shipped model and a random pair, with no recorded numbers: the CPU gives those."""
    policy = read_checkpoint(ASSETS / SHIPPED)
    rng, size = np.random.default_rng(0), policy.config.vision.image_size
    prompt, chosen, rejected = (random_ids(rng, policy.config, length) for length in (24, 7, 5))
    prompt[4] = VIDEO_PLACE
    return GoldenCase(
        folder=ASSETS / SHIPPED,
        policy=policy,
        reference=policy,
        frames_FHWC=rng.integers(0, 256, (FRAMES, size, size, 3), dtype=np.uint8),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        beta=0.1,
        sft_weight=1.0,
        outputs={},
        grads={},
    )


def random_ids(rng: np.random.Generator, config: VideoLMMConfig, length: int) -> np.ndarray:
    """Token ids of no meaning."""
    return rng.integers(0, config.language.vocab_rows, length).astype(np.int32)


def pair_row(model: LoadedModel, multiple: int) -> dict[str, np.ndarray]:
    """A batch of one random pair, its row padded to a multiple of so many tokens."""
    rng, config = np.random.default_rng(0), model.config
    visual = np.arange(config.tokens_per_video(FRAMES), dtype=np.int32)
    text = random_ids(rng, config, 16)
    prompt = Prompt(
        tokens=np.concatenate([np.zeros_like(visual), text]),
        visual_index=np.concatenate([visual, np.full_like(text, -1)]),
    )
    answers = [random_ids(rng, config, length).tolist() for length in (7, 5)]
    lengths = [len(answer) for answer in answers]
    shape = fitting_shape([len(prompt.tokens)], lengths, multiple=multiple)
    size = config.vision.image_size
    frames = rng.integers(0, 256, (1, FRAMES, size, size, 3), dtype=np.uint8)
    return stack([make_row(prompt, answers, shape)]) | {"frames": frames}
