"""Answers about the videos of a store: frames are encoded once, and few steps are compiled."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.answering import Request
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.prompts import PromptPolicy, time_instruction
from data_pipelines.sampling import FramePolicy
from tests.data_pipelines.conftest import make_video  # noqa: F401
from tpo_jax.api import Answerer, LoadedModel, load, suffix_bucket
from tpo_jax.cli.answering import StoreAnswerer
from tpo_jax.generation import slots
from tpo_jax.generation.engine import Engine
from tpo_jax.generation.sampling import SamplingConfig

LENGTHS = (40, 55, 62)  # frames of the videos, of which every second is stored


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load("demo_base")


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory,
    model: LoadedModel,
    make_video: Callable[..., Path],  # noqa: F811
) -> FrameStore:
    root = tmp_path_factory.mktemp("store")
    videos = [make_video(root / f"{n}.mp4", count=n, fps=10) for n in LENGTHS]
    policy = FramePolicy(fps=5.0, max_frames=64)
    build_store(videos, root / "frames", frame_policy=policy, image_policy=model.images)
    return FrameStore.open(root / "frames")


def answerer(model: LoadedModel, **prompts: bool) -> Answerer:
    sampling = SamplingConfig(max_new_tokens=4)
    return Answerer(model, prompts=PromptPolicy(**prompts), sampling=sampling)  # type: ignore[arg-type]


def request(*positions: int, question: str = "What is shown?") -> Request:
    return Request(question=question, positions=np.array(positions, np.int64))


def test_a_video_is_encoded_once_while_it_is_kept(
    model: LoadedModel, store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [request(0, 3), request(1)]
    fresh = [
        StoreAnswerer(model, answerer(model), store).answer(video, asked) for video in store.videos
    ]
    encoded: list[int] = []
    encode = Answerer.encode

    def note(self: Answerer, frames: np.ndarray) -> object:
        encoded.append(len(frames))
        return encode(self, frames)

    monkeypatch.setattr(Answerer, "encode", note)
    stored = [len(store.info(video).times_F) for video in store.videos]
    text = request(question="Say it.")
    for keep, expected in ((2, stored * 2), (3, stored)):
        encoded.clear()
        one = StoreAnswerer(model, answerer(model), store, keep=keep)
        for _ in range(2):
            for video, answers in zip(store.videos, fresh, strict=True):
                one.answer(video, [text])  # shows no frame, so there is nothing to encode
                assert one.answer(video, [*asked, text])[:2] == answers
        assert encoded == expected


def test_questions_and_samples_on_the_same_frames_share_their_prefix(
    model: LoadedModel, store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefilled: list[int] = []
    prefill = Engine.prefill

    def note(self: Engine, visual_MD: Any, row: Any) -> object:
        prefilled.append(1)
        return prefill(self, visual_MD, row)

    monkeypatch.setattr(Engine, "prefill", note)
    warm = replace(request(0, 3, 5), temperature=3.0)
    samples = [replace(warm, sample=number) for number in range(5)]
    others = [replace(warm, question="What moves?"), request(1, 2), request(2, 1)]
    one, video = StoreAnswerer(model, answerer(model), store), store.videos[0]
    told = one.answer(video, [*samples, *others])
    assert len(prefilled) == 3
    assert len({answer.text for answer in told[:5]}) > 1
    assert one.answer(video, samples[3:]) == told[3:5]  # whatever else is asked


def test_many_prompts_compile_a_handful_of_steps(model: LoadedModel, store: FrameStore) -> None:
    """Three videos of different length, 1 to 17 frames of them, questions of any length."""
    steps = {"encode": 1, "prefill": 1, "admit": 1, "decode": 1, "empty_slots": 1}
    for name in steps:
        getattr(slots, name).clear_cache()
    for number, video in enumerate(store.videos):
        requests = [
            request(*range(number, number + shown), question="What is it? " * (1 + shown % 2))
            for shown in range(1, 9)
        ]
        asked = StoreAnswerer(model, answerer(model), store)
        asked.answer(video, [*requests, request(*range(16 + number % 2))])  # and a longer set
    assert {name: getattr(slots, name)._cache_size() for name in steps} == steps


def test_few_lengths_of_what_follows_a_prefix() -> None:
    """Captions that a judge reads may have any length."""
    lengths = np.arange(1, 4097)
    padded = np.array([suffix_bucket(int(length)) for length in lengths])
    assert len(set(padded.tolist())) == 14
    assert (padded >= lengths).all() and (padded[63:] <= 1.5 * lengths[63:]).all()


def test_a_shuffled_video_tells_no_order(model: LoadedModel, store: FrameStore) -> None:
    times_F = store.info(store.videos[0]).times_F
    timed = answerer(model, time_instruction=True)
    prompt = timed._prompt(request(5, 6, 0, 1), times_F, 4.0)
    text = model.tokenizer.decode(prompt.tokens[prompt.visual_index < 0].tolist())
    assert time_instruction(4.0, times_F[[0, 1, 5, 6]].tolist()) in text
    shown = prompt.visual_index[prompt.visual_index >= 0]
    assert (shown // model.config.tokens_per_frame).reshape(4, -1)[:, 0].tolist() == [5, 6, 0, 1]
