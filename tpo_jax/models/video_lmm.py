"""The whole model: frames and tokens in, hidden states and logits out."""

from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from tpo_jax.attention import Layout
from tpo_jax.models.frame_chunks import map_frames
from tpo_jax.models.language import Decoder, KVCache, LanguageConfig
from tpo_jax.models.place_visual import place_visual
from tpo_jax.models.projector import Projector
from tpo_jax.models.vision import VisionConfig, VisionTower
from tpo_jax.models.visual_tokens import VisualTokensConfig, frame_tokens, video_tokens
from tpo_jax.parallel.mesh import constrain_frames


@dataclass(frozen=True, kw_only=True)
class VideoLMMConfig:
    """The four parts' settings."""

    vision: VisionConfig
    language: LanguageConfig
    visual_tokens: VisualTokensConfig

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of one frame, newlines included."""
        return self.visual_tokens.tokens_per_frame(self.vision.side)

    def tokens_per_video(self, frames: int) -> int:
        """Visual tokens of a video shown as `frames` frames."""
        return self.visual_tokens.tokens_per_video(self.vision.side, frames)


class VideoLMM(nnx.Module):
    """Vision tower, projector, pooling with newlines, decoder."""

    def __init__(self, config: VideoLMMConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.language.width
        self.vision = VisionTower(config.vision, rngs=rngs)
        self.projector = Projector(config.vision.width, width, rngs=rngs)
        self.language = Decoder(config.language, rngs=rngs)
        if config.visual_tokens.stores_newline:
            noise = jax.random.normal(rngs.params(), (width,))
            self.newline = nnx.Param(noise * width**-0.5)

    def _newline(self) -> Float[Array, " D"] | None:
        return None if self.config.visual_tokens.newline == "none" else self.newline[...]

    def encode_frames(self, frames_FHWC: UInt8[Array, "F H W 3"]) -> Float[Array, "F N D"]:
        """Visual tokens of each frame: tower, projector, pooling, newlines in the frame.

        A few frames at a time (`config.vision.frames_per_chunk`). Going backward, features of the
        tower are kept and what the projector makes of them, several times as much, is not.
        """
        graph, state = nnx.split((self.projector, self._newline()))

        @jax.checkpoint
        def project(state: nnx.State, features_FPC: jax.Array) -> jax.Array:
            projector, newline = nnx.merge(graph, state)
            projected_FPD = constrain_frames(projector(features_FPC))
            return frame_tokens(projected_FPD, newline, self.config.visual_tokens)

        return map_frames(
            lambda chunk_FHWC: project(state, self.vision(chunk_FHWC)),
            frames_FHWC,
            self.config.vision.frames_per_chunk,
        )

    def encode_videos(self, frames_BFHWC: UInt8[Array, "B F H W 3"]) -> Float[Array, "B M D"]:
        """Visual tokens of whole videos, in one sequence each."""
        batch = frames_BFHWC.shape[0]
        tokens = self.encode_frames(rearrange(frames_BFHWC, "B F H W C -> (B F) H W C"))
        return self.join_frames(rearrange(tokens, "(B F) N D -> B F N D", B=batch))

    def join_frames(self, tokens_BFND: Float[Array, "B F N D"]) -> Float[Array, "B M D"]:
        """Tokens of chosen frames as one video (adds the end newline where the family has one)."""
        return video_tokens(tokens_BFND, self._newline(), self.config.visual_tokens)

    def embed(
        self,
        tokens_BT: Int[Array, "B T"],
        visual_BMD: Float[Array, "B M D"],
        visual_index_BT: Int[Array, "B T"],
    ) -> Float[Array, "B T D"]:
        """Embeddings of a row: visual token `visual_index` where that is >= 0, else the text.

        A visual token stands in a row at most once.
        """
        text_BTD = self.language.embed(tokens_BT)
        placed_BTD = place_visual(visual_BMD.astype(text_BTD.dtype), visual_index_BT)
        return jnp.where(visual_index_BT[..., None] >= 0, placed_BTD, text_BTD)

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        visual_BMD: Float[Array, "B M D"],
        visual_index_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        layout: Layout,
        cache: KVCache | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """Final hidden states of a row (and the cache with the row written from its start)."""
        x_BTD = self.embed(tokens_BT, visual_BMD, visual_index_BT)
        return self.language(x_BTD, positions_BT, layout, cache)

    def logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Scores over the vocabulary rows, fp32."""
        return self.language.logits(hidden)


Params = dict  # nested plain dict of arrays, as nnx.to_pure_dict makes it


def abstract_model(config: VideoLMMConfig) -> tuple[nnx.GraphDef, Params]:
    """The model's structure, and its parameters as shapes only: nothing is allocated."""
    graph, shapes = _traced(config)
    return graph, jax.tree.map(lambda shape: shape, shapes)  # a dict of the caller's own


@cache
def _traced(config: VideoLMMConfig) -> tuple[nnx.GraphDef, Params]:
    model = nnx.eval_shape(lambda: VideoLMM(config, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    return graph, nnx.to_pure_dict(state)


def init_params(config: VideoLMMConfig, seed: int, shardings: Params | None = None) -> Params:
    """Random fp32 parameters; rows that pad the vocabulary are zeros.

    Args:
      config: the model.
      seed: the same seed gives the same values, however they are sharded.
      shardings: a NamedSharding for every parameter. Each device then makes its own shards, and no
        parameter is ever whole on one. Without it, all are made on the first device.
    """
    if shardings is None:
        return _draw_params(config, seed)
    return jax.jit(_draw_params, static_argnums=0, out_shardings=shardings)(config, seed)


@partial(jax.jit, static_argnums=0)
def _draw_params(config: VideoLMMConfig, seed: int) -> Params:
    _, state = nnx.split(VideoLMM(config, rngs=nnx.Rngs(jax.random.key(seed))))
    params = nnx.to_pure_dict(state)
    if config.language.padding_rows:
        rows, language = config.language.vocab_rows, params["language"]
        language["embed"]["embedding"] = language["embed"]["embedding"].at[rows:].set(0)
        if not config.language.tied_embeddings:
            language["head"]["kernel"] = language["head"]["kernel"].at[:, rows:].set(0)
    return params
