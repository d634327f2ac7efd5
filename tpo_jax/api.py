"""What people import: load a checkpoint, ask it about videos.

from tpo_jax.api import load, ask
model = load("demo_base")
print(ask(model, "clip.mp4", "What comes first in the video?"))
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from tokenizers import Tokenizer

from data_pipelines import anyres
from data_pipelines.answering import Answer, Request
from data_pipelines.batches import prompt_row, round_up, stack
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.prompts import FrameTimes, Prompt, PromptPolicy, end_token, make_prompt
from data_pipelines.sampling import FramePolicy
from data_pipelines.tokenizer import load_tokenizer
from data_pipelines.video import decode_frames, read_index
from data_pipelines.video_info import VideoInfo
from tpo_jax.errors import InputError
from tpo_jax.generation.engine import Engine
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.interop.imported import is_imported, read_imported
from tpo_jax.interop.keys import Naming
from tpo_jax.interop.reader import read_checkpoint, read_config
from tpo_jax.models.checkpoint_config import image_mode, model_config
from tpo_jax.models.remat import Remat
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model
from tpo_jax.parallel.rules import check_heads
from tpo_jax.training.step import cast

ASSETS = Path(__file__).parent / "assets"
ROWS_A_BATCH = 8
PROMPT_BUCKET = 64


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A checkpoint in memory: fp32 parameters, structure, tokenizer, and where it came from."""

    folder: epath.Path
    config: VideoLMMConfig
    graph: nnx.GraphDef
    params: Params
    tokenizer: Tokenizer
    fingerprint: str
    json: dict
    naming: Naming

    @property
    def images(self) -> ImagePolicy:
        """How frames are resized for this model's encoder."""
        return _image_policy(self.config)


def find_checkpoint(name: str) -> epath.Path:
    """A checkpoint folder (local or gs://), or one that ships with the package (`demo_base`)."""
    for folder in (epath.Path(name), epath.Path(ASSETS) / name):
        if (folder / "config.json").exists():
            return folder
    raise InputError(
        f"{name}: no checkpoint here; give a folder with config.json, model.safetensors and "
        "tokenizer.json, or one that `tpo import` wrote, or the name demo_base"
    )


def checkpoint_images(name: str) -> ImagePolicy:
    """How frames are resized for a checkpoint's encoder; reads config.json only."""
    return _image_policy(model_config(read_config(find_checkpoint(name))))


def _image_policy(config: VideoLMMConfig) -> ImagePolicy:
    return ImagePolicy(size=config.vision.image_size, mode=image_mode(config))


def load(name: str, *, remat: Remat = "none", mesh: Mesh | None = None) -> LoadedModel:
    """Load a checkpoint: a PyTorch folder or an imported one, local or in a bucket (gs://).

    Args:
      name: the folder, or the name of a checkpoint that ships with the package.
      remat: what is kept going forward, to train it with less memory: see `models/remat.py`.
      mesh: where the fp32 parameters go, tensor by tensor into their shards. Without one they are
        on this host (a PyTorch folder) or on the first device (an imported one).

    Raises:
      InputError: the folder is missing, its files do not fit together, or the mesh cuts its heads.
    """
    folder = find_checkpoint(name)
    if mesh is not None:
        check_heads(model_config(read_config(folder)), mesh)
    read = read_imported if is_imported(folder) else read_checkpoint
    checkpoint = read(folder, mesh=mesh)
    language = replace(checkpoint.config.language, remat=remat)
    config = replace(checkpoint.config, language=language)
    graph, _ = abstract_model(config)
    return LoadedModel(
        folder=folder,
        config=config,
        graph=graph,
        params=checkpoint.params,
        tokenizer=load_tokenizer(folder),
        fingerprint=checkpoint.fingerprint,
        json=checkpoint.json,
        naming=checkpoint.naming,
    )


class Answerer:
    """Answers questions about frames in memory, encoded once for all requests of a call."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        prompts: PromptPolicy,
        sampling: SamplingConfig,
        compute_dtype: str = "float32",
        seed: int = 0,
    ):
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
        )

    def answer_frames(
        self,
        frames_FHWC: np.ndarray,
        times_F: np.ndarray,
        duration: float,
        requests: Sequence[Request],
    ) -> list[Answer]:
        """An answer for each request, in order; its positions index the frames given here.

        `frames_FHWC` is uint8 [F, S, S, 3] at the encoder's size, `times_F` and `duration` seconds.
        """
        visual_MD = self._engine.encode(frames_FHWC)
        prompts = [self._prompt(request, times_F, duration) for request in requests]
        # Sorted by length, so that short prompts are not padded to the longest.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), ROWS_A_BATCH):
            chosen = order[start : start + ROWS_A_BATCH]
            length = round_up(max(len(prompts[i].tokens) for i in chosen), PROMPT_BUCKET)
            filled = chosen + [chosen[-1]] * (ROWS_A_BATCH - len(chosen))  # one batch size
            rows = stack([prompt_row(prompts[i], length) for i in filled])
            seeds = np.array([self._row_seed(requests[i]) for i in filled], np.uint32)
            said = self._engine.generate(visual_MD, rows, seeds)
            for i, tokens_A, logprobs_A in zip(chosen, *said, strict=False):
                answers[i] = self._answer(tokens_A, logprobs_A)
        return [answers[i] for i in range(len(requests))]

    def _prompt(self, request: Request, times_F: np.ndarray, duration: float) -> Prompt:
        positions = np.asarray(request.positions)
        index = self._engine.visual_index(positions, len(times_F))
        prompt = make_prompt(
            self._model.tokenizer,
            request.question,
            visual_tokens=len(index),
            policy=self._prompts,
            duration=duration,
            times=times_F[positions].tolist(),
        )
        prompt.visual_index[prompt.visual_index >= 0] = index
        return prompt

    def told_times(self, info: VideoInfo) -> np.ndarray:
        """The seconds of a video's stored frames that the prompts tell, float64 [F]."""
        return info.told_times(self._prompts.frame_times)

    def _row_seed(self, request: Request) -> int:
        """A seed that belongs to the request and not to the place it got in a batch."""
        what = f"{self._seed}|{request.question}|{list(map(int, request.positions))}"
        return int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], "big")

    def _answer(self, tokens_A: np.ndarray, logprobs_A: np.ndarray) -> Answer:
        ends = np.flatnonzero(tokens_A == self._end)
        said = tokens_A[: ends[0]] if len(ends) else tokens_A
        return Answer(
            text=self._model.tokenizer.decode([int(token) for token in said]).strip(),
            tokens=len(said) + min(len(ends), 1),
            logprob=float(logprobs_A.sum()),
            finished=len(ends) > 0,
        )


class StoreAnswerer:
    """Answers questions about the videos of a FrameStore: the `VideoModel` of the host side."""

    def __init__(self, model: LoadedModel, answerer: Answerer, store: FrameStore):
        self.name = f"{model.folder.name}@{model.fingerprint}"
        self._answerer = answerer
        self._store = store

    def answer(self, video_id: str, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request, in order."""
        info = self._store.info(video_id)
        frames_FHWC = self._store.frames(video_id, np.arange(len(info.times_F)))
        times_F = self._answerer.told_times(info)
        return self._answerer.answer_frames(frames_FHWC, times_F, info.duration, requests)


def ask(
    model: LoadedModel,
    video: str | Path,
    question: str,
    *,
    frames: int | FramePolicy = 32,
    prompts: PromptPolicy | None = None,
    sampling: SamplingConfig | None = None,
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

    Raises:
      InputError: the file cannot be read, or is an image and the model does not take images.
    """
    prompts = prompts or PromptPolicy()
    if anyres.is_image(video):
        seen = _image_crops(model, video)
        times_F, duration = np.zeros(len(seen)), 0.0
        prompts = replace(prompts, time_instruction=False)
    else:
        policy = frames
        if not isinstance(policy, FramePolicy):
            policy = FramePolicy(kind="uniform", max_frames=policy)
        seen, times_F, duration = _video_frames(model, video, policy, prompts.frame_times)
    answerer = Answerer(model, prompts=prompts, sampling=sampling or SamplingConfig())
    request = Request(question=question, positions=np.arange(len(seen)))
    return answerer.answer_frames(seen, times_F, duration, [request])[0].text


def _video_frames(
    model: LoadedModel, video: str | Path, policy: FramePolicy, times: FrameTimes
) -> tuple[np.ndarray, np.ndarray, float]:
    """Frames uint8 [F, S, S, 3], the seconds told of each, and of the whole video."""
    index = read_index(str(video))
    sample = policy.sample(len(index.times_F), index.fps)
    unique, back = np.unique(sample.numbers_F, return_inverse=True)
    pictures = np.stack([model.images.prepare(rgb) for rgb in decode_frames(index, unique)])
    if times == "reference":
        return pictures[back], sample.times_F, sample.duration
    return pictures[back], index.times_F[sample.numbers_F], index.duration


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
