"""A checkpoint as the needle in a haystack asks it (`benchmarks/tasks/needles.py`).

The score is whether every token of the answer is the likeliest at its place after those before it.
Greedy decoding says the likeliest token and goes on from there, so that is the same as whether it
begins with the answer's tokens: no forward pass of its own is needed.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.tasks.needles import Needle, Outcome, Trial, is_said
from data_pipelines.batches import prompt_row, round_up
from data_pipelines.prompts import Prompt, PromptPolicy, end_token, make_prompt
from tpo_jax.api import SUFFIX_BUCKET, LoadedModel, prefix_bucket
from tpo_jax.errors import InputError
from tpo_jax.generation.engine import CHUNK, Ask, Engine
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.training.step import cast

# The question brings its own newline.
PROMPTS = PromptPolicy(after_video="nothing")


class NeedleModel:
    """Frames and needles, encoded once, and the checkpoint that is asked about them."""

    def __init__(
        self,
        model: LoadedModel,
        haystack_FHWC: np.ndarray,
        needles: Sequence[Needle],
        *,
        compute_dtype: str = "float32",
        mesh: Mesh | None = None,
    ):
        """Args:
        model: the checkpoint, on `mesh` where there is one.
        haystack_FHWC: the longest haystack, uint8 [F, S, S, 3] at the encoder's size.
        needles: their pictures go the way of frames.
        compute_dtype: of the forward passes.
        """
        self._model = model
        self._needles = list(needles)
        self._answers = [
            model.tokenizer.encode(needle.answer, add_special_tokens=False).ids
            for needle in needles
        ]
        self._frames = len(haystack_FHWC)
        self._engine = Engine(
            model.config,
            model.graph,
            cast(model.params, jnp.dtype(compute_dtype)),
            end_token=end_token(model.tokenizer),
            # Of few lengths, since another one compiles the step anew.
            sampling=SamplingConfig(
                max_new_tokens=round_up(max(map(len, self._answers)), CHUNK), temperature=0.0
            ),
            mesh=mesh,
        )
        pictures = [model.images.prepare(needle.picture) for needle in needles]
        self._stored = self._frames + len(pictures)
        self._visual_MD = self._engine.encode(np.concatenate([haystack_FHWC, pictures]))

    @property
    def name(self) -> str:
        """Who answered."""
        return f"{self._model.folder.name} {self._model.fingerprint}"

    def say(self, trial: Trial) -> Outcome:
        """What it says, greedily. InputError if the haystack is shorter than is asked for."""
        if trial.length > self._frames:
            raise InputError(
                f"a haystack of {trial.length} frames is asked for, the film has {self._frames}; "
                "take a longer film or a smaller grid"
            )
        frames = np.arange(trial.length)
        positions = np.insert(frames, trial.before, self._frames + trial.needle)
        index = self._engine.visual_index(positions, self._stored)
        prompt = make_prompt(
            self._model.tokenizer,
            self._needles[trial.needle].question,
            visual_tokens=len(index),
            policy=PROMPTS,
        )
        prompt.visual_index[prompt.visual_index >= 0] = index
        end = int(np.flatnonzero(prompt.visual_index >= 0)[-1]) + 1
        before = Prompt(tokens=prompt.tokens[:end], visual_index=prompt.visual_index[:end])
        after = Prompt(tokens=prompt.tokens[end:], visual_index=prompt.visual_index[end:])
        prefix = self._engine.prefill(self._visual_MD, prompt_row(before, prefix_bucket(end)))
        row = prompt_row(after, round_up(len(after.tokens), SUFFIX_BUCKET))
        (said,) = self._engine.answer(prefix, [Ask(row=row, seed=0, temperature=0.0)])
        answer = self._answers[trial.needle]
        return Outcome(
            said=self._model.tokenizer.decode([int(token) for token in said.tokens]).strip(),
            correct=is_said(said.tokens[: len(answer)], answer),
        )
