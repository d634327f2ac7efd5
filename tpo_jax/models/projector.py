"""The mlp2x_gelu projector: Linear, exact (erf) GELU, Linear."""

import jax
from flax import nnx
from jaxtyping import Array, Float


class Projector(nnx.Module):
    """Vision features to the width of the decoder."""

    def __init__(self, vision_width: int, width: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(vision_width, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, features_FPC: Float[Array, "F P C"]) -> Float[Array, "F P D"]:
        """Applied to every patch."""
        return self.second(jax.nn.gelu(self.first(features_FPC), approximate=False))
