"""Protocols hold what was measured with, by task and model."""

from dataclasses import asdict, fields

import numpy as np
import pytest

from benchmarks.protocols import (
    FAMILIES,
    PROTOCOLS,
    Family,
    Protocol,
    VideoFacts,
    find_protocol,
)
from benchmarks.tasks.registry import TASKS
from data_pipelines.errors import InputError


@pytest.mark.parametrize(
    ("family", "task", "frames"),
    [
        ("llava_video", "mlvu", 128),
        ("llava_video", "longvideobench_val_v", 128),
        ("llava_video", "video_mme", 96),
        ("llava_video", "video_mme_subtitles", 96),
        ("longva", "video_mme", 128),
        ("longva", "mlvu", 128),
        ("longva", "longvideobench_val_v", 128),
        ("longva", "video_mme_subtitles", 96),
    ],
)
def test_frames_of_the_paper(family: Family, task: str, frames: int) -> None:
    protocol = find_protocol("tpo-paper", task, family)
    assert protocol.frames == frames
    assert protocol == Protocol(
        name="tpo-paper",
        frames=frames,
        frame_kind="uniform",
        pool="average",
        time_instruction=False,
        pixels="float16",
        prompts="2025-01",
        letters="longvideobench" if "long" in task else "legacy",
        subtitle_points=32,
        subtitle_order="set",
        mlvu="micro",
        max_new_tokens=32 if "longvideobench" in task else 16,
        temperature=0,
        seed=0,
    )


def test_the_best_is_what_the_model_was_trained_with() -> None:
    video, longva = (find_protocol("best", "mlvu", family) for family in FAMILIES)
    assert (video.frames, video.frame_kind, video.time_instruction) == (64, "uniform", True)
    assert (longva.frames, longva.frame_kind, longva.time_instruction) == (128, "uniform", False)
    assert {video.pool, longva.pool} == {"model"}
    assert find_protocol("best", "longvideobench_val_v", "longva").letters == "new"  # no guesses


def test_the_adapters_of_the_harness_take_different_frames() -> None:
    short = VideoFacts(frames=300, fps=30.0, duration=10.0)
    video, longva = (find_protocol("lmms-eval", "mlvu", family) for family in FAMILIES)
    assert video.frame_numbers(short).tolist() == list(range(0, 300, 30))
    # Spread, though there are fewer frames than are asked for: some are shown twice.
    spread = longva.frame_numbers(VideoFacts(frames=50, fps=5.0, duration=10.0))
    assert spread.tolist() == np.linspace(0, 49, 128).astype(int).tolist()
    long = VideoFacts(frames=9000, fps=30.0, duration=300.0)
    assert video.frame_numbers(long).tolist() == np.linspace(0, 8999, 64).astype(int).tolist()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_setting_can_be_written_down(name: str) -> None:
    for task in TASKS:
        protocol = find_protocol(name, task, "longva")
        told = asdict(protocol)
        assert set(told) == {field.name for field in fields(Protocol)}
        assert Protocol(**told) == protocol


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="protocol 'paper': must be one of tpo-paper, lmms-eval"):
        find_protocol("paper", "mlvu", "longva")
    with pytest.raises(InputError, match="family 'llava': must be one of llava_video, longva"):
        find_protocol("best", "mlvu", "llava")  # type: ignore[arg-type]
