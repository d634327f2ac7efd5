"""Our models under lmms-eval: `python -m lmms_eval --model tpo_jax --model_args ...`.

lmms-eval makes the prompts, reads the data and scores; frames, model and decoding are ours. It
needs lmms-eval installed beside tpo_jax (docs/evaluation.md says how). Settings come as
`--model_args=pretrained=FOLDER,max_frames_num=128,pool=average,pixel_dtype=float16`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from lmms_eval.api.model import lmms

from data_pipelines.answering import Request
from data_pipelines.prompts import FrameTimes, PromptPolicy
from data_pipelines.sampling import FramePolicy
from tpo_jax.api import Answerer, video_frames
from tpo_jax.cli.eval_model import PixelDtype, Pool, load_overridden
from tpo_jax.cli.progress import stage_progress
from tpo_jax.errors import InputError
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.parallel.mesh import MeshConfig, make_mesh

# What a task's generation_kwargs may hold. Of those that are not read here, only what they say by
# default is taken: another value would be left out in silence.
READ = ("max_new_tokens", "temperature", "top_p", "do_sample")
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "image_aspect_ratio": (None, "original", "pad", "anyres", "anyres_max_9"),
}


class TpoJax(lmms):
    """A checkpoint that `tpo_jax.api.load` reads, for tasks that generate text about one video."""

    is_simple = True

    def __init__(
        self,
        pretrained: str = "demo_base",
        *,
        max_frames_num: int = 64,
        frames: Literal["uniform", "fps"] = "uniform",
        fps: float = 1.0,
        pool: Pool | None = None,
        pixel_dtype: PixelDtype = "float32",
        compute_dtype: str = "bfloat16",
        time_instruction: bool = False,
        frame_times: FrameTimes = "reference",
        fsdp: int = 1,
        tensor: int = 1,
        batch_size: int | str | None = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
    ):
        """Args:
        pretrained: folder of a checkpoint, or the name of one that ships with tpo_jax.
        max_frames_num: frames of a video, at most for `frames=fps`.
        frames: which frames are shown, as `FramePolicy.kind`.
        fps: frames a second, for `frames=fps`.
        pool: overwrites the checkpoint's pooling.
        pixel_dtype: what normalised pixels are rounded to.
        compute_dtype: of the model.
        time_instruction: tells LLaVA-Video models when frames are shown.
        frame_times: which times it tells.
        fsdp: devices over which the parameters are spread.
        tensor: devices that split each layer.
        batch_size, max_batch_size, device: lmms-eval hands them over; questions about one video
          are answered together, on all devices, whatever they are.
        """
        super().__init__()
        mesh = make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor)) if fsdp * tensor > 1 else None
        self._mesh = mesh
        self._model = load_overridden(pretrained, pool=pool, pixel_dtype=pixel_dtype, mesh=mesh)
        self._frames = FramePolicy(kind=frames, fps=float(fps), max_frames=int(max_frames_num))
        self._prompts = PromptPolicy(time_instruction=time_instruction, frame_times=frame_times)
        self._compute_dtype = compute_dtype
        self._answerers: dict[SamplingConfig, Answerer] = {}

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """An answer for each request, in order. A video is decoded and encoded once for all.

        Raises:
          InputError: a request shows something else than one video file, or asks for a way of
            generating that there is not.
        """
        together: dict[tuple[str, SamplingConfig], list[tuple[int, str]]] = {}
        for number, request in enumerate(requests):
            context, generation, doc_to_visual, doc_id, task, split = request.args[:6]
            visuals = doc_to_visual(self.task_dict[task][split][doc_id])
            video = one_video(visuals, f"{task}: doc {doc_id}")
            sampling = read_generation(generation, task)
            together.setdefault((video, sampling), []).append((number, context))
        answers: dict[int, str] = {}
        with stage_progress("tpo_jax", len(requests)) as update:
            for (video, sampling), asked in together.items():
                answers |= self._ask(video, sampling, asked)
                update(len(answers), video)
        return [answers[number] for number in range(len(requests))]

    def _ask(
        self, video: str, sampling: SamplingConfig, asked: Sequence[tuple[int, str]]
    ) -> dict[int, str]:
        seen_FHWC, times_F, duration = video_frames(
            self._model, video, self._frames, self._prompts.frame_times, 0.0, None
        )
        whole = np.arange(len(seen_FHWC))
        requests = [Request(question=context, positions=whole) for _, context in asked]
        said = self._answerer(sampling).answer_frames(seen_FHWC, times_F, duration, requests)
        return {number: one.text for (number, _), one in zip(asked, said, strict=True)}

    def _answerer(self, sampling: SamplingConfig) -> Answerer:
        if sampling not in self._answerers:
            self._answerers[sampling] = Answerer(
                self._model,
                prompts=self._prompts,
                sampling=sampling,
                compute_dtype=self._compute_dtype,
                mesh=self._mesh,
            )
        return self._answerers[sampling]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: the video tasks of lmms-eval all generate."""
        raise NotImplementedError("the model tpo_jax of lmms-eval only takes tasks that generate")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise NotImplementedError("the model tpo_jax of lmms-eval takes tasks of one round only")


def one_video(visuals: Any, where: str) -> str:
    """The video file that a task shows; `where` is for the message. InputError: anything else."""
    if isinstance(visuals, list | tuple) and len(visuals) == 1 and isinstance(visuals[0], str):
        return visuals[0]
    kinds = ", ".join(sorted({type(one).__name__ for one in visuals or []})) or "nothing"
    raise InputError(
        f"{where}: shows {len(visuals or [])} visuals ({kinds}); the model tpo_jax takes one "
        "video file a question"
    )


def read_generation(kwargs: dict[str, Any], task: str) -> SamplingConfig:
    """A task's generation_kwargs as a SamplingConfig.

    `until` is not read: an answer ends where the model ends its turn, as in the adapters of the
    authors' models, which drop it too.

    Raises:
      InputError: they ask for something that is not offered here; names it.
    """
    for key, value in kwargs.items():
        if key in (*READ, "until") or value in WITHOUT_EFFECT.get(key, ()):
            continue
        raise InputError(f"{task}: generation_kwargs.{key}={value!r} is not offered by tpo_jax")
    temperature = float(kwargs.get("temperature") or 0.0)
    if not kwargs.get("do_sample", temperature > 0):
        temperature = 0.0
    return SamplingConfig(
        max_new_tokens=int(kwargs.get("max_new_tokens", 1024)),
        temperature=temperature,
        top_p=float(kwargs.get("top_p") or 1.0),
    )
