"""Random weights for a PyTorch model, and a PyTorch model's weights as our parameters."""

import math
from typing import Any

import numpy as np
from flax import nnx

from tpo_jax.interop import keys
from tpo_jax.models.video_lmm import Params


def randomise(model: Any, seed: int) -> Any:
    """Draws every weight, biases and the scales of norms too, and puts the model in eval mode.

    Matrices keep the size of what they multiply. Biases have std 0.3, scales are 1 and std 0.3:
    PyTorch's own start, zeros and ones, would hide a bias that is never added.
    """
    import torch

    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            shape = tuple(weight.shape)
            std = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
            centre = float("norm" in name and name.endswith("weight"))
            weight.copy_(torch.tensor(rng.normal(centre, std, shape).astype(np.float32)))
    return model.eval()


def params_of(model: Any, shapes: Params, naming: keys.Naming) -> Params:
    """A PyTorch model's weights in the tree of `shapes`; every one of them must find a place."""
    theirs = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    arrays = {}
    for path, leaf in keys.flat_paths(shapes):
        layers = []
        for name, shape in keys.their_tensors(path, leaf.shape, naming):
            tensor = theirs.pop(name)
            assert tensor.shape == shape, name
            layers.append(keys.to_ours(path, tensor))
        arrays[tuple(path.split("/"))] = np.stack(layers) if keys.is_stacked(path) else layers[0]
    assert not theirs, sorted(theirs)
    return nnx.traversals.unflatten_mapping(arrays)
