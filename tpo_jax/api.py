"""What people import: load a checkpoint, ask it about videos.

from tpo_jax.api import load, ask
model = load("demo_base")
print(ask(model, "clip.mp4", "Describe what is shown."))
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from data_pipelines import anyres
from data_pipelines.answering import Answer, Request
from data_pipelines.batches import prompt_row, round_up
from data_pipelines.prompts import (
    FrameTimes,
    Prompt,
    PromptPolicy,
    end_token,
    interleaved_prompt,
    make_prompt,
    video_prompt,
)
from data_pipelines.sampling import FramePolicy
from data_pipelines.video import decode_frames, read_index
from data_pipelines.video_info import VideoInfo
from tpo_jax.errors import InputError
from tpo_jax.generation.engine import CHUNK, Ask, Engine, Said
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.loading import ASSETS, LoadedModel, checkpoint_images, find_checkpoint, load
from tpo_jax.training.step import cast

__all__ = [
    "ASSETS",
    "Answerer",
    "LoadedModel",
    "ask",
    "checkpoint_images",
    "find_checkpoint",
    "load",
    "video_frames",
]

PROMPT_BUCKET = 64
SUFFIX_BUCKET = 32


class Answerer:
    """Answers questions about frames in memory, encoded once for all that is asked of them."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        prompts: PromptPolicy,
        sampling: SamplingConfig,
        compute_dtype: str = "float32",
        seed: int = 0,
        mesh: Mesh | None = None,
    ):
        """Args: a model, on `mesh` where there is one; how it is asked, and how it draws."""
        self._model = model
        self._prompts = prompts
        self._seed = seed
        self._end = end_token(model.tokenizer)
        self._engine = Engine(
            model.config,
            model.graph,
            cast(model.params, jnp.dtype(compute_dtype)),
            end_token=self._end,
            sampling=sampling,
            mesh=mesh,
        )

    def answer_frames(
        self,
        frames_FHWC: np.ndarray,
        times_F: np.ndarray,
        duration: float,
        requests: Sequence[Request],
        *,
        chunk: int = CHUNK,
        listener: Callable[[int, str], None] | None = None,
    ) -> list[Answer]:
        """`encode`, then `answer`."""
        visual_MD = self.encode(frames_FHWC)
        return self.answer(visual_MD, times_F, duration, requests, chunk=chunk, listener=listener)

    def encode(self, frames_FHWC: np.ndarray) -> Float[Array, "M D"]:
        """What `answer` shows of frames, uint8 [F, S, S, 3] at the encoder's size; F may be 0."""
        return self._engine.encode(frames_FHWC) if len(frames_FHWC) else self.nothing_seen()

    def nothing_seen(self) -> Float[Array, "1 D"]:
        """For requests that show no frame."""
        return self._engine.nothing_seen()

    def answer(
        self,
        visual_MD: Float[Array, "M D"],
        times_F: np.ndarray,
        duration: float,
        requests: Sequence[Request],
        *,
        chunk: int = CHUNK,
        listener: Callable[[int, str], None] | None = None,
    ) -> list[Answer]:
        """An answer for each request, in order; its positions index the frames encoded.

        Args:
          visual_MD: what `encode` made of the frames.
          times_F: seconds of each.
          duration: of the video, in seconds.
          requests: what is asked; one without positions is asked as text alone.
          chunk: tokens between two looks at what is done, and two calls of `listener`.
          listener: told (number of the request, what is said so far) as answers grow.
        """
        prompts = [self._prompt(request, times_F, duration) for request in requests]
        # Prompts that show the same frames begin alike, up to the last of them.
        beginnings = [self._beginning(prompt) for prompt in prompts]
        groups: dict[tuple[bytes, bytes], list[int]] = {}
        for number, (prompt, end) in enumerate(zip(prompts, beginnings, strict=True)):
            alike = (prompt.tokens[:end].tobytes(), prompt.visual_index[:end].tobytes())
            groups.setdefault(alike, []).append(number)
        answers: dict[int, Answer] = {}
        for numbers in groups.values():
            beginning = beginnings[numbers[0]]
            row = _prefix_row(prompts[numbers[0]], beginning)
            prefix = self._engine.prefill(visual_MD, row)
            # Prompts of one bucket of length go together, so that none is padded to the longest.
            rests: dict[int, list[int]] = {}
            for number in numbers:
                rest = len(prompts[number].tokens) - beginning
                rests.setdefault(suffix_bucket(rest), []).append(number)
            for length, together in rests.items():
                asks = [
                    self._ask(prompts[number], requests[number], beginning, length)
                    for number in together
                ]
                said = self._engine.answer(
                    prefix,
                    asks,
                    chunk=chunk,
                    listener=listener
                    and (lambda at, t, to=together: listener(to[at], self._text(t))),
                )
                answers |= {n: self._answer(one) for n, one in zip(together, said, strict=True)}
        return [answers[number] for number in range(len(requests))]

    def _prompt(self, request: Request, times_F: np.ndarray, duration: float) -> Prompt:
        positions = np.asarray(request.positions, np.int64)
        policy = self._prompts
        if not len(positions):
            policy = replace(policy, time_instruction=False)  # there is no video to tell times of
        index = self._engine.visual_index(positions, len(times_F))
        if request.interleaved:
            # One token at the end of all frames has no place where frames stand one by one.
            index = index[: len(positions) * self._model.config.tokens_per_frame]
            prompt = interleaved_prompt(
                self._model.tokenizer,
                request.question,
                frames=len(positions),
                tokens_per_frame=self._model.config.tokens_per_frame,
            )
            prompt.visual_index[prompt.visual_index >= 0] = index
            return prompt
        prompt = make_prompt(
            self._model.tokenizer,
            request.question,
            visual_tokens=len(index),
            policy=policy,
            duration=duration,
            # A video whose runs are shuffled passes for one: its times would tell the right order.
            times=np.sort(times_F[positions]).tolist(),
        )
        prompt.visual_index[prompt.visual_index >= 0] = index
        return prompt

    def _beginning(self, prompt: Prompt) -> int:
        """How many tokens come before the first that is not shared: up to the last visual one."""
        visual = np.flatnonzero(prompt.visual_index >= 0)
        if len(visual):
            return int(visual[-1]) + 1
        return len(video_prompt(self._model.tokenizer, visual_tokens=0).tokens)

    def told_times(self, info: VideoInfo) -> np.ndarray:
        """The seconds of a video's stored frames that the prompts tell, float64 [F]."""
        return info.told_times(self._prompts.frame_times)

    def _ask(self, prompt: Prompt, request: Request, beginning: int, length: int) -> Ask:
        rest = Prompt(
            tokens=prompt.tokens[beginning:], visual_index=prompt.visual_index[beginning:]
        )
        temperature = request.temperature
        if temperature is None:
            temperature = self._engine.sampling.temperature
        row = prompt_row(rest, length)
        return Ask(row=row, seed=self._seed_of(request), temperature=temperature)

    def _seed_of(self, request: Request) -> int:
        """A seed that belongs to the request and not to the place it got in a batch."""
        what = f"{self._seed}|{request.question}|{list(map(int, request.positions))}"
        if request.sample:
            what += f"|{request.sample}"
        return int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], "big")

    def _answer(self, said: Said) -> Answer:
        return Answer(
            text=self._text(said.tokens).strip(),
            tokens=len(said.tokens),
            logprob=float(said.logprobs.sum()),
            finished=bool(said.tokens[-1] == self._end),
        )

    def _text(self, tokens: np.ndarray) -> str:
        said = tokens[:-1] if len(tokens) and tokens[-1] == self._end else tokens
        return self._model.tokenizer.decode([int(token) for token in said])


def _prefix_row(prompt: Prompt, length: int) -> dict[str, np.ndarray]:
    beginning = Prompt(tokens=prompt.tokens[:length], visual_index=prompt.visual_index[:length])
    return prompt_row(beginning, prefix_bucket(length))


def suffix_bucket(length: int) -> int:
    """The padded length of what follows a prefix: two values from one power of two to the next.

    No more, since the steps are compiled for each, and a writer or judge reads captions of any
    length.
    """
    return round_up(length, max(SUFFIX_BUCKET, 2 ** max(length.bit_length() - 2, 0)))


def prefix_bucket(length: int) -> int:
    """A prefix's padded length: of few values, none more than an eighth longer than it must be."""
    step = max(PROMPT_BUCKET, 2 ** max(length.bit_length() - 4, 0))
    return round_up(length, step)


def ask(
    model: LoadedModel,
    video: str | Path,
    question: str,
    *,
    frames: int | FramePolicy = 32,
    prompts: PromptPolicy | None = None,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    start: float = 0.0,
    end: float | None = None,
    listener: Callable[[str], None] | None = None,
) -> str:
    """Ask about a video file, or about an image file if the model is of LongVA's kind.

    Args:
      model: from `load`.
      video: a video, or an image by its suffix (`data_pipelines.anyres.SUFFIXES`).
      question: without anything that stands for the video.
      frames: which frames of a video are shown; a number stands for that many, uniform over its
        whole length. An image is shown whole.
      prompts: how the question is put. Of an image no times are told, since it has none.
      sampling: how the answer is drawn.
      seed: another seed draws another answer, at a temperature above 0.
      start: second that the part shown begins at; it is shown as if it were the whole video.
      end: second that it ends at; None for the video's end.
      listener: told what has been said so far, token by token.

    Raises:
      InputError: the file cannot be read, or is an image and the model does not take images; or
        there is no frame from `start` to `end`.
    """
    prompts = prompts or PromptPolicy()
    if anyres.is_image(video):
        if start or end is not None:
            raise InputError(f"{video}: an image, which has no time; leave out start and end")
        seen = _image_crops(model, video)
        times_F, duration = np.zeros(len(seen)), 0.0
        prompts = replace(prompts, time_instruction=False)
    else:
        policy = frames
        if not isinstance(policy, FramePolicy):
            policy = FramePolicy(kind="uniform", max_frames=policy)
        seen, times_F, duration = video_frames(
            model, video, policy, prompts.frame_times, start, end
        )
    answerer = Answerer(model, prompts=prompts, sampling=sampling or SamplingConfig(), seed=seed)
    request = Request(question=question, positions=np.arange(len(seen)))
    (answer,) = answerer.answer_frames(
        seen,
        times_F,
        duration,
        [request],
        chunk=1 if listener else CHUNK,
        listener=listener and (lambda _, said: listener(said)),
    )
    return answer.text


def video_frames(
    model: LoadedModel,
    video: str | Path,
    policy: FramePolicy,
    times: FrameTimes,
    start: float,
    end: float | None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Frames uint8 [F, S, S, 3] of a part, the seconds told of each, and of the part."""
    index = read_index(str(video))
    last = index.duration if end is None else min(end, index.duration)
    part = np.flatnonzero((index.times_F >= start) & (index.times_F <= last))
    if start < 0 or not len(part):
        raise InputError(
            f"{video}: no frame from {start:g} to {last:g} s; it lasts {index.duration:.2f} s"
        )
    sample = policy.sample(len(part), index.fps)
    numbers_F = part[sample.numbers_F]
    unique, back = np.unique(numbers_F, return_inverse=True)
    pictures = np.stack([model.images.prepare(rgb) for rgb in decode_frames(index, unique)])
    if times == "reference":
        return pictures[back], sample.times_F, sample.duration
    return pictures[back], index.times_F[numbers_F] - start, last - start


def _image_crops(model: LoadedModel, path: str | Path) -> np.ndarray:
    """Crops of an image, uint8 [crops, S, S, 3]."""
    merge_type = model.json.get("mm_patch_merge_type")
    if merge_type != anyres.MERGE_TYPE:
        raise InputError(
            f"{path}: an image, which only models with mm_patch_merge_type {anyres.MERGE_TYPE!r} "
            f"in config.json take; {model.folder.name} has {merge_type!r}: give a video"
        )
    side = model.config.vision.image_size
    resolutions = anyres.parse_pinpoints(
        model.json.get(anyres.PINPOINTS_KEY),
        side,
        where=f"{model.folder / 'config.json'}: {anyres.PINPOINTS_KEY}",
    )
    return anyres.image_crops(anyres.read_image(path), resolutions, side)
