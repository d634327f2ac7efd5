"""Our parameter paths and PyTorch tensor names: the only file with PyTorch names in it.

A path is that of a leaf in the nested dict of parameters, joined by "/". Leaves of `layers` stack
all layers, [L, ...], and stand for L tensors. Layouts differ in two ways: a linear kernel is
[in, out] here and [out, in] there, and the patch kernel is [(p q C), D] here and a convolution
[D, C, p, q] there.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from tpo_jax.models.video_lmm import Params


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Prefixes of one generation of tensor names.

    `name` is what `--layout` calls it. `tower` and `decoder` end where the names that all
    generations share begin.
    """

    name: str
    decoder: str
    head: str
    tower: str
    projector: tuple[str, str]
    newline: str

    def fill(self, pattern: str, layer: int = 0) -> str:
        """A name from its pattern in the tables below."""
        return pattern.format(
            decoder=self.decoder,
            head=self.head,
            tower=self.tower,
            first=self.projector[0],
            second=self.projector[1],
            newline=self.newline,
            layer=layer,
        )


def _onevision(name: str, *, outer: str, decoder: str, head: str, inner: str) -> Naming:
    return Naming(
        name=name,
        decoder=decoder,
        head=head,
        tower=f"{outer}vision_tower.{inner}",
        projector=(
            f"{outer}multi_modal_projector.linear_1",
            f"{outer}multi_modal_projector.linear_2",
        ),
        newline=f"{outer}image_newline",
    )


# What the LLaVA-Video, LLaVA-OneVision and LongVA code reads and writes.
LLAVA = Naming(
    name="llava",
    decoder="model.",
    head="lm_head",
    tower="model.vision_tower.vision_tower.vision_model.",
    projector=("model.mm_projector.0", "model.mm_projector.2"),
    newline="model.image_newline",
)
# The LlavaOnevision class of transformers. Every later release reads the names of 4.45; 5.x saves
# them without the tower's inner level; a model's own state_dict() has other prefixes than its file.
_FILE = {"outer": "", "decoder": "language_model.model.", "head": "language_model.lm_head"}
_MEMORY = {"outer": "model.", "decoder": "model.language_model.", "head": "lm_head"}
ONEVISION = _onevision("onevision", **_FILE, inner="vision_model.")
NAMINGS: Mapping[str, Naming] = {
    naming.name: naming
    for naming in (
        LLAVA,
        ONEVISION,
        _onevision("onevision-4.52", **_MEMORY, inner="vision_model."),
        _onevision("onevision-5", **_FILE, inner=""),
        _onevision("onevision-5-state", **_MEMORY, inner=""),
    )
}

MODULES: Mapping[str, str] = {
    "language/embed": "{decoder}embed_tokens",
    "language/norm": "{decoder}norm",
    "language/head": "{head}",
    "language/layers/norm1": "{decoder}layers.{layer}.input_layernorm",
    "language/layers/norm2": "{decoder}layers.{layer}.post_attention_layernorm",
    "language/layers/q": "{decoder}layers.{layer}.self_attn.q_proj",
    "language/layers/k": "{decoder}layers.{layer}.self_attn.k_proj",
    "language/layers/v": "{decoder}layers.{layer}.self_attn.v_proj",
    "language/layers/out": "{decoder}layers.{layer}.self_attn.o_proj",
    "language/layers/gate": "{decoder}layers.{layer}.mlp.gate_proj",
    "language/layers/up": "{decoder}layers.{layer}.mlp.up_proj",
    "language/layers/down": "{decoder}layers.{layer}.mlp.down_proj",
    "projector/first": "{first}",
    "projector/second": "{second}",
    "vision/patch": "{tower}embeddings.patch_embedding",
    "vision/positions": "{tower}embeddings.position_embedding",
    "vision/pre_norm": "{tower}pre_layrnorm",  # sic
    "vision/post_norm": "{tower}post_layernorm",
    "vision/layers/norm1": "{tower}encoder.layers.{layer}.layer_norm1",
    "vision/layers/norm2": "{tower}encoder.layers.{layer}.layer_norm2",
    "vision/layers/q": "{tower}encoder.layers.{layer}.self_attn.q_proj",
    "vision/layers/k": "{tower}encoder.layers.{layer}.self_attn.k_proj",
    "vision/layers/v": "{tower}encoder.layers.{layer}.self_attn.v_proj",
    "vision/layers/out": "{tower}encoder.layers.{layer}.self_attn.out_proj",
    "vision/layers/fc1": "{tower}encoder.layers.{layer}.mlp.fc1",
    "vision/layers/fc2": "{tower}encoder.layers.{layer}.mlp.fc2",
}
LEAVES: Mapping[str, str] = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "embedding": "weight",
}
SINGLE_TENSORS: Mapping[str, str] = {
    "newline": "{newline}",
    "vision/class_token": "{tower}embeddings.class_embedding",
}

PATCH_KERNEL = "vision/patch/kernel"
# Rows of the vocabulary are the first axis of these tensors.
VOCABULARY = ("language/embed/embedding", "language/head/kernel")
COLOURS = 3

# Buffers that old checkpoints saved beside the parameters; they are computed, not read.
SKIPPED_SUFFIXES = (".inv_freq", ".position_ids")


def flat_paths(params: Params) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of every parameter."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        yield jax.tree_util.keystr(keys, simple=True, separator="/"), leaf


def is_stacked(path: str) -> bool:
    """Whether the leaf's first axis is the layer."""
    return "/layers/" in path


def their_name(path: str, layer: int = 0, naming: Naming = LLAVA) -> str:
    """The tensor's name in a checkpoint; `layer` counts where the leaf is stacked."""
    if path in SINGLE_TENSORS:
        return naming.fill(SINGLE_TENSORS[path])
    module, _, leaf = path.rpartition("/")
    return f"{naming.fill(MODULES[module], layer)}.{LEAVES[leaf]}"


def find_naming(names: Collection[str]) -> Naming | None:
    """The generation that a checkpoint's tensors are named in, by its embedding and its tower."""
    marks = ("language/embed/embedding", PATCH_KERNEL)
    for naming in NAMINGS.values():
        if all(their_name(mark, naming=naming) in names for mark in marks):
            return naming
    return None


def to_theirs(path: str, array: np.ndarray) -> np.ndarray:
    """One layer's parameter in their layout."""
    if path == PATCH_KERNEL:
        side = math.isqrt(array.shape[0] // COLOURS)
        return array.reshape(side, side, COLOURS, -1).transpose(3, 2, 0, 1)
    return array.T if path.endswith("/kernel") else array


def to_ours(path: str, tensor: np.ndarray) -> np.ndarray:
    """One tensor in our layout."""
    if path == PATCH_KERNEL:
        return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
    return tensor.T if path.endswith("/kernel") else tensor


def their_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in their layout of one layer's parameter of our `shape`."""
    if path == PATCH_KERNEL:
        side = math.isqrt(shape[0] // COLOURS)
        return (shape[1], COLOURS, side, side)
    return shape[::-1] if path.endswith("/kernel") else shape


def their_tensors(
    path: str, shape: tuple[int, ...], naming: Naming = LLAVA
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the tensors that a leaf of our `shape` stands for, layer by layer."""
    if is_stacked(path):
        inner = their_shape(path, shape[1:])
        yield from ((their_name(path, layer, naming), inner) for layer in range(shape[0]))
    else:
        yield their_name(path, naming=naming), their_shape(path, shape)
