"""How a model is measured: every setting that can move a score, under one name.

A score is a number of a model under a protocol. What is set here goes into the result file whole,
so that two numbers can be told apart.

    tpo-paper   as TPO's numbers were measured: lmms-eval of January 2025, adapter `longva`
    lmms-eval   the same harness as of 0.7.3, with the adapter that is made for the model
    best        what the model was trained with, and repaired rules

The frames, pooling and prompts of the first are those of TPO's evaluation script and of that
adapter: it takes frames spread over the whole video, tells no times, pools by average whatever the
model was trained with, and gives the encoder half-precision pixels.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.letters import Rule
from data_pipelines.errors import InputError
from data_pipelines.sampling import FramePolicy

Family = Literal["llava_video", "longva"]
SubtitleOrder = Literal["set", "time"]
FAMILIES: tuple[Family, ...] = ("llava_video", "longva")
PROTOCOLS = ("tpo-paper", "lmms-eval", "best")


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What prompts and frame rules need of a video: its frames, frames a second, and seconds."""

    frames: int
    fps: float
    duration: float


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of one measurement.

    Attributes:
      name: see above.
      frames: how many are shown at most.
      frame_kind: "uniform" spreads `frames` over all frames, repeating some of a short video; "fps"
        takes `fps` a second, and spreads where these are more than `frames`.
      fps: for "fps".
      pool: how patches are pooled; "model" leaves it to the checkpoint's config.
      time_instruction: LLaVA-Video's sentence about the video's length and the frames' times.
      pixels: the type pixels are rounded to before the encoder.
      prompts: whose words are around a question: those of lmms-eval in "2025-01", those of "0.7.3"
        for an unknown model, or those it has since then for adapter "llava_vid".
      letters: how a letter is found in an answer.
      subtitle_points: how many moments of a video subtitles are taken at; -1 for every frame.
      subtitle_order: "set" lists them in the order of a Python set and leaves out those without
        the usual markup, as the harness does; "time" lists all by time.
      interleaved_frames: how many frames at most where the prompt says where each goes.
      mlvu: which average is the headline number, over items ("micro") or over task types ("m_avg").
      max_new_tokens: an answer's room. None leaves it to the task.
      temperature: 0 takes the likeliest token.
      seed: of rules that guess.
      taken: what is taken away of the frames, for the grounding audit (`counterfactual.py`).
    """

    name: str
    frames: int
    frame_kind: Literal["uniform", "fps"] = "uniform"
    fps: float = 1.0
    pool: Literal["average", "bilinear", "max", "model"] = "model"
    time_instruction: bool = False
    pixels: Literal["float16", "float32"] = "float32"
    prompts: Literal["2025-01", "0.7.3", "0.7.3 llava_vid"] = "0.7.3"
    letters: Rule = "new"
    subtitle_points: int = 32
    subtitle_order: SubtitleOrder = "set"
    interleaved_frames: int = 16
    mlvu: Literal["micro", "m_avg"] = "m_avg"
    max_new_tokens: int = 16
    temperature: float = 0.0
    seed: int = 0
    taken: Literal["nothing", "removed", "shuffled", "blind"] = "nothing"

    def frame_numbers(self, video: VideoFacts) -> np.ndarray:
        """Numbers of the frames that are shown, int64 [F], ascending, some more than once."""
        kind: Literal["uniform", "fps"] = "uniform" if self.frame_kind == "uniform" else "fps"
        policy = FramePolicy(kind=kind, fps=self.fps, max_frames=self.frames)
        return policy.sample(video.frames, video.fps).numbers_F


# Frames in TPO's evaluation script, by model and task; what it does not measure gets the most.
_PAPER_FRAMES = {
    ("llava_video", "video_mme"): 96,
    ("llava_video", "video_mme_subtitles"): 96,
    ("longva", "video_mme_subtitles"): 96,
}
_PAPER_FRAMES_ELSE = 128
# An answer's room where a task's own differs from the 16 tokens of most.
_NEW_TOKENS = {"longvideobench_val_v": 32, "longvideobench_val_i": 32}


def find_protocol(name: str, task: str, family: Family) -> Protocol:
    """The settings for a task and a family of models.

    Args:
      name: one of PROTOCOLS.
      task: name of a task; one that is not listed here gets what is most common.
      family: "llava_video" (LLaVA-Video, LLaVA-OneVision) or "longva".

    Raises:
      InputError: no such protocol or family.
    """
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r}: must be one of {', '.join(PROTOCOLS)}")
    if family not in FAMILIES:
        raise InputError(f"family {family!r}: must be one of {', '.join(FAMILIES)}")
    if task == "demo":
        # Its model was trained with what configs/demo.py says, whatever its family.
        found = find_protocol(name, "", family)
        return replace(
            found, frames=32, frame_kind="uniform", max_new_tokens=24, time_instruction=False
        )
    room = _NEW_TOKENS.get(task, 16)
    if name == "tpo-paper":
        return Protocol(
            name=name,
            frames=_PAPER_FRAMES.get((family, task), _PAPER_FRAMES_ELSE),
            pool="average",
            pixels="float16",
            prompts="2025-01",
            letters="longvideobench" if task.startswith("longvideobench") else "legacy",
            mlvu="micro",
            max_new_tokens=room,
        )
    llava_video = family == "llava_video"
    harness = Protocol(
        name=name,
        frames=64 if llava_video else 128,
        # Both adapters pool by average unless they are told another mode.
        pool="average",
        pixels="float16",
        prompts="0.7.3 llava_vid" if llava_video else "0.7.3",
        letters="longvideobench" if task.startswith("longvideobench") else "new",
        frame_kind="fps" if llava_video else "uniform",
        subtitle_points=768 if llava_video else 32,
        max_new_tokens=room,
    )
    if name == "lmms-eval":
        return harness
    return replace(
        harness,
        frame_kind="uniform",
        pool="model",
        time_instruction=llava_video,
        pixels="float32",
        letters="new",
        subtitle_order="time",
    )
