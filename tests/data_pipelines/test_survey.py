"""What storing videos would take, before it is done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.survey import survey

POLICIES: dict[str, Any] = {
    "frame_policy": FramePolicy(fps=5.0, max_frames=40),
    "image_policy": ImagePolicy(size=32),
}


def test_it_counts_what_a_build_stores(
    tmp_path: Path, make_video: Callable[..., Path], bad_videos: dict[str, Path]
) -> None:
    videos = [make_video(tmp_path / f"{count}.mp4", count=count) for count in (5, 50, 200)]
    bad = [bad_videos[name] for name in ("empty.mp4", "half.mp4", "damaged.mp4")]
    found = survey([*videos, *bad], encoding="raw", **POLICIES)
    built = build_store([*videos, *bad], tmp_path / "store", **POLICIES)
    # Only a decoder finds what is damaged behind a whole index.
    assert [path.name for path, _ in found.refused] == ["empty.mp4", "half.mp4"]
    damaged = survey(bad[2:], encoding="raw", **POLICIES)
    assert damaged.files == 1
    assert found.files == built.videos + 1
    assert found.frames == built.frames + damaged.frames
    assert found.hours == pytest.approx(255 / 25 / 3600 + damaged.hours)
    assert found.source_bytes == sum(one.stat().st_size for one in [*videos, bad[2]])
    assert found.tried > 0 and found.decode_seconds > 0 and found.store_bytes > 0


def test_nothing_to_store(bad_videos: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"none of 1 files can be read; the first, .*empty"):
        survey([bad_videos["empty.mp4"]], encoding="raw", **POLICIES)
