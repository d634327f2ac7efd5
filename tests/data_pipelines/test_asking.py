"""What `ask` and the answerers show a model: of an image, of a video, and of a store."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.answering import Answer
from data_pipelines.anyres import image_crops, parse_pinpoints
from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.lessons import train_tokenizer
from data_pipelines.prompts import Prompt, PromptPolicy, make_prompt, time_instruction
from data_pipelines.sampling import FramePolicy
from data_pipelines.video import read_index
from tests.golden import golden_folder
from tests.random_params import random_params
from tpo_jax.api import Answerer, LoadedModel, ask, load
from tpo_jax.cli.answering import StoreAnswerer
from tpo_jax.errors import InputError as ModelInputError
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.interop.writer import write_checkpoint
from tpo_jax.models.checkpoint_config import config_from_json

SIDE = 336


def picture(width: int, height: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def longva(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny LongVA of random weights, written and loaded as a checkpoint is."""
    described = json.loads((golden_folder("longva") / "config.json").read_text())
    described["image_grid_pinpoints"] = "(1x1),...,(3x3)"
    folder = tmp_path_factory.mktemp("longva")
    train_tokenizer(450).save(str(folder / "tokenizer.json"))
    config = config_from_json(described)
    write_checkpoint(folder, config=config, params=random_params(config), json=described)
    return load(str(folder))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What one call of `ask` gave the model, and what came back."""

    frames: np.ndarray
    times: np.ndarray
    prompt: Prompt
    answer: str


def watch(
    monkeypatch: pytest.MonkeyPatch, model: LoadedModel, *given: Any, run: bool = False, **more: Any
) -> Shown:
    """Asks, and notes the frames and the prompt on their way; the model itself runs if told to."""
    seen: dict[str, Any] = {}
    answer_frames, make = Answerer.answer_frames, Answerer._prompt

    def note_frames(
        self: Answerer,
        frames: np.ndarray,
        times: np.ndarray,
        duration: float,
        requests: Any,
        **rest: Any,
    ) -> list[Answer]:
        seen.update(frames=frames, times=times)
        if run:
            return answer_frames(self, frames, times, duration, requests, **rest)
        lengths = [len(self._prompt(request, times, duration).tokens) for request in requests]
        return [Answer(text=str(n), tokens=1, logprob=0.0, finished=True) for n in lengths]

    def note_prompt(self: Answerer, *rest: Any) -> Prompt:
        seen["prompt"] = make(self, *rest)
        return seen["prompt"]

    with monkeypatch.context() as patch:
        patch.setattr(Answerer, "answer_frames", note_frames)
        patch.setattr(Answerer, "_prompt", note_prompt)
        answer = ask(model, *given, sampling=SamplingConfig(max_new_tokens=4), **more)
    return Shown(answer=answer, **seen)


def test_ask_shows_an_image_as_its_crops(
    longva: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wide.PNG"
    rgb = picture(700, 400)
    Image.fromarray(rgb).save(path)
    shown = watch(monkeypatch, longva, path, "What is this?", run=True)
    expected_crops = image_crops(rgb, parse_pinpoints("(1x1),...,(3x3)", SIDE), SIDE)
    assert len(expected_crops) == 6
    np.testing.assert_array_equal(shown.frames, expected_crops)
    # 144 tokens a crop, in order, and nothing said of times.
    expected = make_prompt(
        longva.tokenizer, "What is this?", visual_tokens=6 * 144, policy=PromptPolicy()
    )
    assert shown.prompt.tokens.tolist() == expected.tokens.tolist()
    assert shown.prompt.visual_index.tolist() == expected.visual_index.tolist()
    timed = PromptPolicy(time_instruction=True)
    again = watch(monkeypatch, longva, str(path), "What is this?", prompts=timed)
    assert again.prompt.tokens.tolist() == expected.tokens.tolist()


def test_ask_refuses_images_it_cannot_show(longva: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(64, 64)).save(path)
    with pytest.raises(ModelInputError, match="a.jpg: an image, which only .* 'unires'") as error:
        ask(load("demo_base"), path, "What is this?")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="missing.jpg: no such file"):
        ask(longva, tmp_path / "missing.jpg", "What is this?")
    for value in (None, "[[384, 384]]"):
        model = replace(longva, json=longva.json | {"image_grid_pinpoints": value})
        with pytest.raises(InputError, match="config.json: image_grid_pinpoints"):
            ask(model, path, "What is this?")


# --------------------------------------------------------------------------------- and of a video


def test_ask_takes_a_number_or_a_policy(
    make_video: Callable[..., Path],
    read_stamp: Callable[[np.ndarray], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load("demo_base")
    pts = [120 * number + 40 * (number % 2) for number in range(60)]  # 25 a second, unevenly
    path = make_video(tmp_path / "a.mp4", count=60, pts=pts)
    index = read_index(path)
    spread = np.linspace(0, 59, 4, dtype=int).tolist()
    every = list(range(0, 60, 12))  # 25 / 2 is rounded to even
    reference = PromptPolicy(time_instruction=True, frame_times="reference")
    cases: list[tuple[Any, PromptPolicy, list[int], list[float]]] = [
        (4, PromptPolicy(), spread, index.times_F[spread].tolist()),
        (FramePolicy(kind="force_sample", max_frames=4), PromptPolicy(), spread,
         index.times_F[spread].tolist()),
        (4, reference, spread, [number / index.fps for number in spread]),
        (FramePolicy(fps=2.0), PromptPolicy(), every, index.times_F[every].tolist()),
        (FramePolicy(fps=2.0), reference, every, [0.0, 1.0, 2.0, 3.0, 4.0]),
    ]  # fmt: skip
    for frames, prompts, numbers, times in cases:
        shown = watch(monkeypatch, model, path, "What comes first?", frames=frames, prompts=prompts)
        assert [read_stamp(rgb) for rgb in shown.frames] == numbers
        assert shown.times.tolist() == times
        text = model.tokenizer.decode(shown.prompt.tokens[shown.prompt.visual_index < 0].tolist())
        told = f"{time_instruction(index.duration, times)}\n" if prompts.time_instruction else ""
        assert f"user\n\n{told}What comes first?" in text
    few = make_video(tmp_path / "few.mp4", count=3, fps=10)
    shown = watch(monkeypatch, model, few, "What comes first?", frames=5)
    assert [read_stamp(rgb) for rgb in shown.frames] == [0, 0, 1, 1, 2]
    with pytest.raises(InputError, match="max_frames 0"):
        ask(model, path, "What?", frames=0)


def test_a_store_tells_the_times_that_the_prompts_ask_for(
    make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("demo_base")
    path = make_video(tmp_path / "a.mp4", count=50, pts=[150 * n + n * n for n in range(50)])
    told: list[list[float]] = []

    def note(_: Answerer, visual: Any, times: np.ndarray, *rest: Any) -> list[str]:
        told.append(times.tolist())
        return []

    monkeypatch.setattr(Answerer, "answer", note)
    policy = FramePolicy(fps=1.0)
    build_store([path], tmp_path / "x", frame_policy=policy, image_policy=model.images)
    store = FrameStore.open(tmp_path / "x")
    for kind in ("exact", "reference"):
        prompts = PromptPolicy(frame_times=kind)
        answerer = Answerer(model, prompts=prompts, sampling=SamplingConfig())
        StoreAnswerer(model, answerer, store).answer(store.videos[0], [])
    numbers = np.arange(0, 50, 15)  # 15 frames a second on the whole, more at first
    assert told == [read_index(path).times_F[numbers].tolist(), [0.0, 1.0, 2.0, 3.0]]
    assert told[0] != told[1]
