"""One vision transformer; SigLIP and CLIP are two settings of it.

SigLIP (transformers `SiglipVisionModel`): no class token, no norm before the layers, biased
patches, tanh GELU. CLIP (`CLIPVisionModel`): class token, a norm before the layers, no patch bias,
quick GELU. The features handed on are the raw residual stream after `layers_used` layers: the norm
after the last layer, and layers beyond, are stored for lossless export but never run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, UInt8

from tpo_jax.attention import attend
from tpo_jax.parallel.mesh import constrain_frames

GELUS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Shape and settings of the tower. `layers` are stored, the first `layers_used` are run.

    Normalised pixels are rounded to `pixel_dtype` before anything else is done with them, since
    evaluation harnesses hand them over as float16; "float32" loses nothing.
    """

    image_size: int
    patch_size: int
    width: int
    mlp_width: int
    heads: int
    layers: int
    layers_used: int
    norm_eps: float
    activation: str
    class_token: bool
    pre_norm: bool
    patch_bias: bool
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    frames_per_chunk: int = 8
    pixel_dtype: Literal["float32", "float16"] = "float32"

    @property
    def side(self) -> int:
        """Patches along one edge; pixels beyond the last whole patch are never read."""
        return self.image_size // self.patch_size


class VisionLayer(nnx.Module):
    """Pre-norm transformer layer with full attention."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        width, eps = config.width, config.norm_eps
        self.config = config
        # The fast variance formula loses digits that parity with PyTorch needs.
        self.norm1 = nnx.LayerNorm(width, epsilon=eps, use_fast_variance=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=eps, use_fast_variance=False, rngs=rngs)
        self.q = nnx.Linear(width, width, rngs=rngs)
        self.k = nnx.Linear(width, width, rngs=rngs)
        self.v = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.fc1 = nnx.Linear(width, config.mlp_width, rngs=rngs)
        self.fc2 = nnx.Linear(config.mlp_width, width, rngs=rngs)

    def __call__(self, x_FPD: Float[Array, "F P D"]) -> Float[Array, "F P D"]:
        """One layer over the patches of each frame."""
        y = self.norm1(x_FPD)
        q, k, v = (
            rearrange(proj(y), "F P (H E) -> F P H E", H=self.config.heads)
            for proj in (self.q, self.k, self.v)
        )
        x_FPD = x_FPD + self.out(rearrange(attend(q, k, v), "F P H E -> F P (H E)"))
        gelu = GELUS[self.config.activation]
        return x_FPD + self.fc2(gelu(self.fc1(self.norm2(x_FPD))))


class VisionTower(nnx.Module):
    """Frames to patch features."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        self.config = config
        patch_pixels = config.patch_size**2 * 3
        positions = config.side**2 + int(config.class_token)
        self.patch = nnx.Linear(patch_pixels, config.width, use_bias=config.patch_bias, rngs=rngs)
        self.positions = nnx.Embed(positions, config.width, rngs=rngs)
        if config.class_token:
            self.class_token = nnx.Param(jnp.zeros(config.width))
        if config.pre_norm:
            self.pre_norm = self._norm(rngs)
        self.post_norm = self._norm(rngs)  # stored, never run

        @nnx.vmap
        def make(key: jax.Array) -> VisionLayer:
            return VisionLayer(config, rngs=nnx.Rngs(key))

        self.layers = make(jax.random.split(rngs.params(), config.layers))

    def _norm(self, rngs: nnx.Rngs) -> nnx.LayerNorm:
        config = self.config
        return nnx.LayerNorm(
            config.width, epsilon=config.norm_eps, use_fast_variance=False, rngs=rngs
        )

    def __call__(self, frames_FHWC: UInt8[Array, "F H W 3"]) -> Float[Array, "F P D"]:
        """Features [F, side*side, width] of uint8 frames, all at once."""
        x_FPD, _ = self._run_layers(self._embed(frames_FHWC))
        return x_FPD[:, 1:] if self.config.class_token else x_FPD

    def states(self, frames_FHWC: UInt8[Array, "F H W 3"]) -> Float[Array, "L F P D"]:
        """The residual stream before the first layer and after each that is run: layers_used + 1.

        The class token, where there is one, is token 0. All frames at once, so for few of them.
        """
        x_FPD = self._embed(frames_FHWC)
        _, states_LFPD = self._run_layers(x_FPD, keep=True)
        assert states_LFPD is not None
        return jnp.concatenate([x_FPD[None], states_LFPD])

    def _embed(self, frames_FHWC: UInt8[Array, "F H W 3"]) -> Float[Array, "F P D"]:
        config = self.config
        dtype = self.positions.embedding[...].dtype
        mean = jnp.asarray(config.image_mean, jnp.float32)
        std = jnp.asarray(config.image_std, jnp.float32)
        pixels = (frames_FHWC.astype(jnp.float32) / 255 - mean) / std
        if config.pixel_dtype == "float16":
            # A cast there and back would be optimised away.
            pixels = jax.lax.reduce_precision(pixels, exponent_bits=5, mantissa_bits=10)
        pixels = pixels.astype(dtype)
        read = config.side * config.patch_size
        patches = rearrange(
            pixels[:, :read, :read],
            "F (h p) (w q) C -> F (h w) (p q C)",
            p=config.patch_size,
            q=config.patch_size,
        )
        x = self.patch(patches)
        if config.class_token:
            first = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, config.width))
            x = jnp.concatenate([first, x], axis=1)
        x = x + self.positions.embedding[...]
        if config.pre_norm:
            x = self.pre_norm(x)
        return x

    def _run_layers(
        self, x_FPD: Float[Array, "F P D"], *, keep: bool = False
    ) -> tuple[Float[Array, "F P D"], Float[Array, "L F P D"] | None]:
        """The residual stream after the layers that are run and, to `keep`, after each of them."""
        graph, stacked = nnx.split(self.layers)
        used = jax.tree.map(lambda leaf: leaf[: self.config.layers_used], stacked)

        def body(x, layer):  # type: ignore[no-untyped-def]
            x = constrain_frames(nnx.merge(graph, layer)(x))
            return x, x if keep else None

        return jax.lax.scan(body, constrain_frames(x_FPD), used)
