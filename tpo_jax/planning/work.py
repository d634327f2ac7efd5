"""What a plan is made for: a step and its shapes, the mesh it lies on, the bytes known beforehand.

Everything here is a shape: no array is made, and no device is asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model
from tpo_jax.parallel.mesh import (
    AXES,
    FRAME_AXES,
    ROW_ARRAYS,
    MeshConfig,
    batch_shardings,
    check_batch,
    check_row,
    fill_mesh,
    mesh_sizes,
    ways_of,
)
from tpo_jax.parallel.rules import check_heads, pad_vocabulary, param_shardings
from tpo_jax.planning.flops import Flops, RowDims, row_flops
from tpo_jax.planning.hardware import Slice
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen
from tpo_jax.training.step import TrainState, check_accumulate, init_state

StepName = Literal["train", "reference", "generate"]
SCHEDULE_STEPS = 1000  # the compiled step is the same for any number


@dataclass(frozen=True, kw_only=True)
class Work:
    """One step of one kind, as its verb would run it.

    "train" and "reference" take `pairs` rows [prompt | answers]. "generate" answers `pairs` prompts
    of one video, whose frames are encoded before, with `answer_tokens` tokens each.

    Attributes:
      step: which of the three.
      config: the model, its `remat` too.
      frames: of a row's video.
      prompt_tokens: P, padding counted.
      answer_tokens: A, of each answer.
      prompt_targets: S, supervised tokens in the prompt.
      pairs: rows of a step, over all devices.
      loss: with a reference, rows hold two answers, else one.
      optimizer: names the frozen parts too.
      compute_dtype: of all but masters and moments.
      accumulate: parts that a training step computes its rows in.
      xla_options: of the compiler, for a training step.
    """

    step: StepName = "train"
    config: VideoLMMConfig
    frames: int
    prompt_tokens: int
    answer_tokens: int
    prompt_targets: int = 0
    pairs: int
    loss: TPOLoss
    optimizer: OptimizerConfig
    compute_dtype: str = "bfloat16"
    accumulate: int = 1
    xla_options: tuple[str, ...] = ()

    @property
    def answers(self) -> int:
        """Answers of a row."""
        return 2 if self.step != "generate" and self.loss.needs_reference else 1

    @property
    def row_tokens(self) -> int:
        """T = P + K * A."""
        return self.prompt_tokens + self.answers * self.answer_tokens

    @property
    def longest_position(self) -> int:
        """How many positions an answer reaches: both continue those of the prompt."""
        return self.prompt_tokens + self.answer_tokens


# --------------------------------------------------------------------------------------- the mesh


def slice_mesh(mesh: MeshConfig, where: Slice) -> MeshConfig:
    """The sizes of all axes on a slice, as training has them there (see `parallel.mesh.fill_mesh`).

    Raises:
      InputError: the sizes do not multiply to the slice's devices, or slices to a part of `data`.
    """
    return fill_mesh(mesh, where.devices, where.slices, f"{where.devices} devices of {where.name}")


def abstract_mesh(mesh: MeshConfig) -> Any:
    """A (filled) mesh of no devices, for what asks for sizes only."""
    return AbstractMesh(tuple(mesh_sizes(mesh).values()), AXES)


def check_work(work: Work, mesh: MeshConfig) -> None:
    """Raises InputError when the work does not divide over the (filled) mesh, as training does."""
    abstract = abstract_mesh(mesh)
    check_heads(work.config, abstract)
    check_batch(abstract, work.pairs)
    if work.step == "train":
        check_accumulate(work.pairs, work.accumulate, mesh.data * mesh.fsdp)
    if work.step != "generate":
        check_row(abstract, work.row_tokens)
    elif work.prompt_tokens % mesh.context:
        raise InputError(
            f"config.mesh.context={mesh.context} does not divide the {work.prompt_tokens} tokens "
            "of a prompt; generate with config.mesh.context=1"
        )


# ------------------------------------------------------------------------------------- the shapes


def batch_shapes(work: Work) -> dict[str, jax.ShapeDtypeStruct]:
    """Every array of a batch: of rows as the loader stacks them, of prompts as the engine is given.

    Shapes are those of all devices together.
    """
    rows = work.pairs
    if work.step == "generate":
        shape = (rows, work.prompt_tokens)
        return {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ROW_ARRAYS}
    answers, answer, targets = work.answers, work.answer_tokens, work.prompt_targets
    size = work.config.vision.image_size
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        **dict.fromkeys(ROW_ARRAYS, ((rows, work.row_tokens), jnp.int32)),
        "answers": ((rows, answers, answer), jnp.int32),
        "answer_mask": ((rows, answers, answer), jnp.float32),
        "prompt_targets": ((rows, targets), jnp.int32),
        "prompt_places": ((rows, targets), jnp.int32),
        "prompt_mask": ((rows, targets), jnp.float32),
        "frames": ((rows, work.frames, size, size, 3), jnp.uint8),
    }
    if work.step == "train" and work.loss.needs_reference:
        shapes["reference_logprobs"] = ((rows, 2, targets + answer), jnp.float32)
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


def on_mesh(shapes: Any, shardings: Any) -> Any:
    """The shapes, each with where it lies."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def param_shapes(work: Work, mesh: Mesh) -> Params:
    """Shapes of the parameters: fp32, but where answers are generated in the compute dtype."""
    dtype = jnp.dtype(work.compute_dtype if work.step == "generate" else "float32")
    _, shapes = abstract_model(pad_vocabulary(work.config, mesh))
    return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape.shape, dtype), shapes)


def abstract_params(work: Work, mesh: Mesh) -> Params:
    """The parameters on the mesh."""
    shapes = param_shapes(work, mesh)
    return on_mesh(shapes, param_shardings(mesh, shapes))


def abstract_state(work: Work, mesh: Mesh) -> TrainState:
    """The training state on the mesh."""
    optimizer = make_optimizer(work.optimizer, SCHEDULE_STEPS)
    parts = split_frozen(param_shapes(work, mesh), work.optimizer.frozen)
    state = jax.eval_shape(lambda trained, frozen: init_state(trained, frozen, optimizer), *parts)
    return on_mesh(state, param_shardings(mesh, state))


def abstract_batch(work: Work, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The batch on the mesh."""
    shapes = batch_shapes(work)
    return on_mesh(shapes, batch_shardings(mesh, shapes))


def device_bytes(tree: Any) -> int:
    """Bytes of one device's part of shapes that lie on a mesh, padding of tiles left out."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


# -------------------------------------------------------------------------------------- the FLOPs


def trained_parts(work: Work) -> frozenset[str]:
    """Top-level parts that have a gradient."""
    if work.step != "train":
        return frozenset()
    return frozenset(abstract_model(work.config)[1]) - set(work.optimizer.frozen)


def pair_flops(work: Work) -> Flops:
    """FLOPs of one row; padding inside it counts."""
    generates = work.step == "generate"
    row = RowDims(
        prompt=work.prompt_tokens,
        answer=work.answer_tokens,
        answers=work.answers,
        frames=0 if generates else work.frames,  # encoded before
        prompt_targets=0 if generates else work.prompt_targets,
    )
    remat = work.config.language.remat
    return row_flops(work.config, row, trained=trained_parts(work), recompute=remat)


def chip_flops(work: Work, mesh: MeshConfig, where: Slice) -> Flops:
    """FLOPs of the busiest chip in a step: its share of the rows, and of frames as they are padded.

    The tokens of a row lie evenly over `context`, front and back taken together.
    """
    share = pair_flops(work).scaled(work.pairs / where.chips)
    frames = work.frames * work.pairs // work.accumulate
    ways = ways_of(abstract_mesh(mesh), FRAME_AXES)
    most = work.config.vision.frames_per_chunk * ways
    chunks = max(-(-frames // most), 1) if most > 0 else 1
    padded = -(-frames // (chunks * ways)) * chunks * ways / frames

    def times(parts: Mapping[str, float]) -> dict[str, float]:
        seen = ("tower", "projector")
        return {part: value * (padded if part in seen else 1) for part, value in parts.items()}

    return Flops(
        forward=times(share.forward),
        backward=times(share.backward),
        recompute=times(share.recompute),
    )
