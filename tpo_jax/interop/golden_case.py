"""A golden case: a small model, one pair, and the numbers that another implementation gave for it.

A folder with

    config.json, model.safetensors     the policy, under the authors' tensor names
    reference.safetensors              the reference: the same config, other weights
    inputs.npz                         frames, prompt, chosen, rejected, beta, gamma
    outputs.npz                        what came out (`OUTPUTS`, with their shapes)
    grads.safetensors                  gradient of the loss for every tensor that got one

`docs/parity.md` describes the arrays.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epath

from tpo_jax.errors import InputError
from tpo_jax.interop.reader import (
    Checkpoint,
    CheckpointFiles,
    open_checkpoint,
    read_checkpoint,
)
from tpo_jax.interop.tensor_file import read_header
from tpo_jax.models.video_lmm import VideoLMMConfig

REFERENCE_FILE = "reference.safetensors"
INPUTS_FILE = "inputs.npz"
OUTPUTS_FILE = "outputs.npz"
GRADS_FILE = "grads.safetensors"

# Stands in the prompt where the video goes.
VIDEO_PLACE = -200
LOGPROBS = (
    "policy_chosen_logp",
    "policy_rejected_logp",
    "reference_chosen_logp",
    "reference_rejected_logp",
)
LOSSES = ("dpo_loss", "sft_loss", "loss")
ARRAYS = ("vision_features", "visual_tokens", "chosen_logits", "rejected_logits")
OUTPUTS = (*ARRAYS, *LOGPROBS, *LOSSES)


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """A case in memory, checked.

    Attributes:
      frames_FHWC: uint8, at the tower's size.
      prompt: int32 [P]; -200 stands, once, where the video goes.
      chosen: int32 [A], the answer's ids; `rejected` too.
      beta: of the DPO term; `sft_weight` is that of the SFT term (gamma in the file).
      outputs: by the names in `OUTPUTS`.
      grads: by tensor name, in the authors' layout.
    """

    folder: Path
    policy: Checkpoint
    reference: Checkpoint
    frames_FHWC: np.ndarray
    prompt: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    beta: float
    sft_weight: float
    outputs: Mapping[str, np.ndarray]
    grads: Mapping[str, np.ndarray]

    @property
    def config(self) -> VideoLMMConfig:
        """Settings of both models."""
        return self.policy.config


def read_case(folder: Path) -> GoldenCase:
    """Reads and checks a case.

    Raises:
      InputError: a file or an array is missing, broken, or not of the shape that config.json asks
        for. Names the file and the array.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of a golden case")
    for name in (REFERENCE_FILE, INPUTS_FILE, OUTPUTS_FILE, GRADS_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: not found; a golden case needs it")
    # Headers and arrays first: a fault in them is found before gigabytes of weights are read.
    files = open_checkpoint(folder)
    config = files.config
    rows = config.language.vocab_rows
    inputs = _Arrays(folder / INPUTS_FILE)
    frames_FHWC = inputs.frames("frames", config.vision.image_size)
    chosen, rejected = inputs.answer("chosen", rows), inputs.answer("rejected", rows)
    prompt = inputs.prompt("prompt", rows)
    beta, sft_weight = inputs.weight("beta"), inputs.weight("gamma")
    lengths = len(frames_FHWC), len(chosen), len(rejected)
    outputs = _read_outputs(_Arrays(folder / OUTPUTS_FILE), config, *lengths)
    grads = _read_grads(folder / GRADS_FILE, files)
    policy = read_checkpoint(folder)
    reference = read_checkpoint(folder, weights=REFERENCE_FILE)
    if reference.config != config:
        raise InputError(
            f"{folder / REFERENCE_FILE}: has {reference.config.language.vocab_rows} vocabulary "
            f"rows, the policy has {rows}; they must be equal"
        )
    return GoldenCase(
        folder=folder,
        policy=policy,
        reference=reference,
        frames_FHWC=frames_FHWC,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        beta=beta,
        sft_weight=sft_weight,
        outputs=outputs,
        grads=grads,
    )


class _Arrays:
    """The arrays of an npz file, each checked as it is taken out."""

    def __init__(self, path: Path):
        self.path = path
        self.arrays: dict[str, np.ndarray] = {}
        name = ""
        try:
            content = np.load(path, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            with content:
                for name in content.files:
                    self.arrays[name] = content[name]
        except Exception as error:  # numpy, zipfile, zlib and tokenize raise each their own
            place = f"{path}: {name}" if name else f"{path}"
            raise InputError(f"{place} cannot be read as npz ({error}); write it again") from error

    def fault(self, name: str, what: str) -> InputError:
        return InputError(f"{self.path}: {name} {what}; write it again")

    def take(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise InputError(f"{self.path}: has no array {name}; write it again with it")
        return self.arrays[name]

    def frames(self, name: str, size: int) -> np.ndarray:
        frames = self.take(name)
        if frames.dtype != np.uint8:
            raise self.fault(name, f"is {frames.dtype}; frames are uint8")
        if frames.ndim != 4 or not len(frames) or frames.shape[1:] != (size, size, 3):
            raise self.fault(name, f"is {list(frames.shape)} instead of [F, {size}, {size}, 3]")
        return frames

    def ids(self, name: str) -> np.ndarray:
        ids = self.take(name)
        if not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 1 or not len(ids):
            raise self.fault(name, f"is {ids.dtype} {list(ids.shape)}; it must be token ids [A]")
        return ids

    def check_range(self, name: str, ids: np.ndarray, rows: int) -> None:
        outside = ids[(ids < 0) | (ids >= rows)]
        if len(outside):
            raise self.fault(name, f"holds id {outside[0]}; the vocabulary has {rows} rows")

    def answer(self, name: str, rows: int) -> np.ndarray:
        ids = self.ids(name)
        self.check_range(name, ids, rows)
        return ids.astype(np.int32)

    def prompt(self, name: str, rows: int) -> np.ndarray:
        ids = self.ids(name)
        is_video = ids == VIDEO_PLACE
        if is_video.sum() != 1:
            raise self.fault(
                name,
                f"holds {VIDEO_PLACE} {is_video.sum()} times; it stands once, where the video goes",
            )
        self.check_range(name, ids[~is_video], rows)
        return ids.astype(np.int32)

    def weight(self, name: str) -> float:
        value = float(self.real(name, ()))
        if value < 0:
            raise self.fault(name, f"is {value}; it must not be negative")
        return value

    def real(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Finite numbers of this shape; for a single one, [1] is as good as []."""
        array = self.take(name)
        if array.dtype.kind not in "fiu":
            raise self.fault(name, f"is {array.dtype}; it must be real numbers")
        if array.shape != shape and not (shape == () and array.shape == (1,)):
            raise self.fault(
                name,
                f"is {list(array.shape)} instead of {list(shape)}, which the config and the "
                f"other arrays ask for",
            )
        if not np.isfinite(array).all():
            raise self.fault(name, "holds a number that is not finite")
        return array.reshape(shape)


def _read_outputs(
    arrays: _Arrays, config: VideoLMMConfig, frames: int, chosen: int, rejected: int
) -> dict[str, np.ndarray]:
    vision, language = config.vision, config.language
    shapes: dict[str, tuple[int, ...]] = {
        "vision_features": (frames, vision.side**2, vision.width),
        "visual_tokens": (config.tokens_per_video(frames), language.width),
        "chosen_logits": (chosen, language.vocab_rows),
        "rejected_logits": (rejected, language.vocab_rows),
    }
    return {name: arrays.real(name, shapes.get(name, ())) for name in OUTPUTS}


def _read_grads(path: Path, files: CheckpointFiles) -> dict[str, np.ndarray]:
    shapes = {name: tensor.shape for name, tensor in files.tensors.items()}
    grads = {}
    for tensor in read_header(epath.Path(path)):
        if tensor.shape != shapes.get(tensor.name, tensor.shape):
            raise InputError(
                f"{path}: {tensor.name} is {list(tensor.shape)}, the parameter "
                f"{list(shapes[tensor.name])}; write it again"
            )
        grad = tensor.read().astype(np.float32)
        if not math.isfinite(np.abs(grad).sum(dtype=np.float64)):
            raise InputError(
                f"{path}: {tensor.name} holds a number that is not finite; write it again"
            )
        grads[tensor.name] = grad
    return grads
