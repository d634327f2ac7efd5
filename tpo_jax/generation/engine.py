"""Answers to many prompts on one video.

The frames of a video are encoded once (`encode`). A prompt's `visual_index` points into the tokens
of all those frames, so a segment, a sparse set and the whole video are three gathers of the same
array. What the prompts on one set of frames have in common, the video, is prefilled once
(`Prefix`); the rest of each goes through slots (`slots.py`), and the next prompt takes the slot of
an answer that has ended.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from tpo_jax.generation import slots as slots_of
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.generation.slots import Prefix
from tpo_jax.models.video_lmm import Params, VideoLMMConfig
from tpo_jax.parallel.mesh import BATCH_AXES, ways_of

FRAME_BUCKET = 32  # frames are encoded in multiples of this, so that few shapes are compiled
ROWS = 8  # slots
CHUNK = 16  # tokens that slots say before those that are done are looked for


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What follows the prefix, and how the answer is drawn.

    Attributes:
      row: `prompt_row` of the tokens after the prefix; equally long for all asks of a call.
      seed: uint32; read where the temperature is above 0.
      temperature: 0 is greedy.
    """

    row: dict[str, np.ndarray]
    seed: int
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer: its tokens, int32 [N], the end token included if it came; log-probs, fp32 [N]."""

    tokens: np.ndarray
    logprobs: np.ndarray


# Told (number of the ask, tokens so far) as answers grow.
Listener = Callable[[int, np.ndarray], None]


class Engine:
    """Encode, prefill and answer for one model."""

    def __init__(
        self,
        config: VideoLMMConfig,
        graph: nnx.GraphDef,
        params: Params,
        *,
        end_token: int,
        sampling: SamplingConfig,
        rows: int = ROWS,
        mesh: Mesh | None = None,
    ):
        """Args: the model, what ends an answer, how answers are drawn, and how many at once.

        With a mesh, `params` lie on it by `parallel.rules`; frames are encoded over all of its
        devices, slots lie over its batch axes (there are as many more as make that even), and heads
        over `tensor`.
        """
        self.config = config
        self.params = params
        self.sampling = sampling
        self._graph = graph
        self._end_token = end_token
        self._rows = (
            rows
            if mesh is None
            else -(-rows // ways_of(mesh, BATCH_AXES)) * ways_of(mesh, BATCH_AXES)
        )
        self._mesh = mesh

    def _on_mesh(self) -> AbstractContextManager[object]:
        return nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    def encode(self, frames_FHWC: np.ndarray) -> Float[Array, "M D"]:
        """Visual tokens of all frames (uint8 [F, S, S, 3]) in one sequence, M = F' * N + 1.

        F' is F rounded up to a bucket; the last token is the end newline of `one_token` families
        and is otherwise not referred to.
        """
        pad = -len(frames_FHWC) % FRAME_BUCKET
        padded = np.pad(frames_FHWC, ((0, pad), (0, 0), (0, 0), (0, 0)))
        with self._on_mesh():
            return slots_of.encode(self._graph, self.params, padded)

    def nothing_seen(self) -> Float[Array, "1 D"]:
        """In place of what `encode` gives, for prompts without a video."""
        dtype = jax.tree.leaves(self.params)[0].dtype
        return jnp.zeros((1, self.config.language.width), dtype)

    def visual_index(self, positions_F: np.ndarray, stored_frames: int) -> np.ndarray:
        """Where the tokens of the frames at `positions` lie in what `encode` gave; int32 [M']."""
        per_frame = self.config.tokens_per_frame
        starts = np.asarray(positions_F, np.int32)[:, None] * per_frame
        index = (starts + np.arange(per_frame, dtype=np.int32)).reshape(-1)
        if len(index) and self.config.visual_tokens.newline == "one_token":
            padded = -(-stored_frames // FRAME_BUCKET) * FRAME_BUCKET
            index = np.append(index, np.int32(padded * per_frame))
        return index

    def prefill(self, visual_MD: Float[Array, "M D"], row: dict[str, np.ndarray]) -> Prefix:
        """What all prompts of a call of `answer` begin with, a `prompt_row`."""
        with self._on_mesh():
            return slots_of.prefill(self._graph, self.config, self.params, visual_MD, row)

    def answer(
        self,
        prefix: Prefix,
        asks: Sequence[Ask],
        *,
        chunk: int = CHUNK,
        listener: Listener | None = None,
    ) -> list[Said]:
        """An answer for each ask, in order, whatever their number.

        Args:
          prefix: from `prefill`.
          asks: at least one; what one is answered does not depend on the others.
          chunk: tokens between two looks at what is done.
          listener: told of every answer after each chunk.
        """
        with self._on_mesh():
            return self._answer(prefix, asks, chunk, listener)

    def _answer(
        self, prefix: Prefix, asks: Sequence[Ask], chunk: int, listener: Listener | None
    ) -> list[Said]:
        dtype = prefix.k.dtype
        suffix = len(asks[0].row["tokens"])
        slots = slots_of.empty_slots(self.config, self.sampling, self._rows, suffix, dtype)
        # Temperatures are those of the asks: another one in the config compiles nothing anew.
        rules = replace(self.sampling, temperature=0.0)
        fixed = (self._graph, self._end_token, rules, self.params)
        waiting = deque(range(len(asks)))
        holds: list[int | None] = [None] * self._rows
        answers: dict[int, Said] = {}
        while waiting or any(number is not None for number in holds):
            for slot, held in enumerate(holds):
                if held is None and waiting:
                    holds[slot] = number = waiting.popleft()
                    ask = asks[number]
                    seed, temperature = np.uint32(ask.seed), np.float32(ask.temperature)
                    slots = slots_of.admit(
                        *fixed, slots, prefix, np.int32(slot), ask.row, seed, temperature
                    )
            slots = slots_of.decode(*fixed, slots, prefix, np.int32(chunk))
            done_B, count_B, said_BA, logprobs_BA = jax.device_get(
                (slots.done_B, slots.count_B, slots.said_BA, slots.logprobs_BA)
            )
            for slot, held in enumerate(holds):
                if held is None:
                    continue
                tokens = said_BA[slot, : count_B[slot]]
                if listener is not None:
                    listener(held, tokens)
                if done_B[slot]:
                    logprobs = logprobs_BA[slot, : count_B[slot]]
                    answers[held] = Said(tokens=tokens.copy(), logprobs=logprobs.copy())
                    holds[slot] = None
        return [answers[number] for number in range(len(asks))]
