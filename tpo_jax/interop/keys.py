"""Our parameter paths and the authors' tensor names: the only file with PyTorch names in it.

A path is that of a leaf in the nested dict of parameters, joined by "/". Leaves of `layers` stack
all layers, [L, ...], and stand for L tensors. Layouts differ in two ways: a linear kernel is
[in, out] here and [out, in] there, and the patch kernel is [(p q C), D] here and a convolution
[D, C, p, q] there.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from tpo_jax.models.video_lmm import Params

TOWER = "model.vision_tower.vision_tower.vision_model."

MODULES: Mapping[str, str] = {
    "language/embed": "model.embed_tokens",
    "language/norm": "model.norm",
    "language/head": "lm_head",
    "language/layers/norm1": "model.layers.{}.input_layernorm",
    "language/layers/norm2": "model.layers.{}.post_attention_layernorm",
    "language/layers/q": "model.layers.{}.self_attn.q_proj",
    "language/layers/k": "model.layers.{}.self_attn.k_proj",
    "language/layers/v": "model.layers.{}.self_attn.v_proj",
    "language/layers/out": "model.layers.{}.self_attn.o_proj",
    "language/layers/gate": "model.layers.{}.mlp.gate_proj",
    "language/layers/up": "model.layers.{}.mlp.up_proj",
    "language/layers/down": "model.layers.{}.mlp.down_proj",
    "projector/first": "model.mm_projector.0",
    "projector/second": "model.mm_projector.2",
    "vision/patch": f"{TOWER}embeddings.patch_embedding",
    "vision/positions": f"{TOWER}embeddings.position_embedding",
    "vision/pre_norm": f"{TOWER}pre_layrnorm",  # sic
    "vision/post_norm": f"{TOWER}post_layernorm",
    "vision/layers/norm1": f"{TOWER}encoder.layers.{{}}.layer_norm1",
    "vision/layers/norm2": f"{TOWER}encoder.layers.{{}}.layer_norm2",
    "vision/layers/q": f"{TOWER}encoder.layers.{{}}.self_attn.q_proj",
    "vision/layers/k": f"{TOWER}encoder.layers.{{}}.self_attn.k_proj",
    "vision/layers/v": f"{TOWER}encoder.layers.{{}}.self_attn.v_proj",
    "vision/layers/out": f"{TOWER}encoder.layers.{{}}.self_attn.out_proj",
    "vision/layers/fc1": f"{TOWER}encoder.layers.{{}}.mlp.fc1",
    "vision/layers/fc2": f"{TOWER}encoder.layers.{{}}.mlp.fc2",
}
LEAVES: Mapping[str, str] = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "embedding": "weight",
}
SINGLE_TENSORS: Mapping[str, str] = {
    "newline": "model.image_newline",
    "vision/class_token": f"{TOWER}embeddings.class_embedding",
}

PATCH_KERNEL = "vision/patch/kernel"
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


def their_name(path: str, layer: int = 0) -> str:
    """The tensor's name in a checkpoint; `layer` counts where the leaf is stacked."""
    if path in SINGLE_TENSORS:
        return SINGLE_TENSORS[path]
    module, _, leaf = path.rpartition("/")
    return f"{MODULES[module].format(layer)}.{LEAVES[leaf]}"


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


def their_tensors(path: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the tensors that a leaf of our `shape` stands for, layer by layer."""
    if is_stacked(path):
        inner = their_shape(path, shape[1:])
        yield from ((their_name(path, layer), inner) for layer in range(shape[0]))
    else:
        yield their_name(path), their_shape(path, shape)
