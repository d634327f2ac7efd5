"""A store decoded on Apache Beam (its runner on this machine) is that of plain worker processes."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from data_pipelines import frames_on_beam
from data_pipelines.errors import InputError
from data_pipelines.frame_build import StoreSummary, build_store
from data_pipelines.frames import FrameStore
from data_pipelines.frames_on_beam import BeamConfig
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.stored_video import store_video
from data_pipelines.video_files import VideoPath

pytest.importorskip("apache_beam")
# The plainest of Beam's runners: in this process, one bundle after another.
FLAGS = ("--runner=BundleBasedDirectRunner",)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> list[Path]:
    """Three videos, one of them under two names, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    made = [
        make_video(folder / "a.mp4", count=50),
        make_video(folder / "deep" / "b.mp4", count=20, first=1000),
        make_video(folder / "c.mkv", count=40, first=2000),
        folder / "copy.mp4",
        folder / "no.mp4",
    ]
    made[3].write_bytes(made[0].read_bytes())
    made[4].write_bytes(b"this is no video")
    return made


def build(videos: list[Path], out: Path, **more: Any) -> StoreSummary:
    return build_store(
        videos,
        out,
        frame_policy=FramePolicy(fps=100.0, max_frames=96),
        image_policy=ImagePolicy(size=32),
        **more,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def plain(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("plain") / "store"
    build(videos, out)
    return contents(out)


@pytest.mark.parametrize("apart", [False, True])
def test_it_is_the_same_store(
    apart: bool, videos: list[Path], plain: dict[str, bytes], tmp_path: Path
) -> None:
    exchange = tmp_path / "exchange"
    beam = BeamConfig(flags=FLAGS, exchange=str(exchange) if apart else None)
    told: list[int] = []
    summary = build(
        videos, tmp_path / "store", beam=beam, progress=lambda done, *_: told.append(done)
    )
    assert contents(tmp_path / "store") == plain
    assert summary.videos == 3 and summary.quarantined == 1
    assert told == [1, 2, 3, 4, 5]
    assert not apart or list(exchange.iterdir()) == []  # what was exchanged is gone
    FrameStore.open(tmp_path / "store").check()


def store_till_third(path: VideoPath, **rest: Any) -> Any:
    """Stands for `store_video` on workers that are lost at one video; notes what is decoded."""
    if path.name == "c.mkv":
        raise OSError("lost")
    return store_video(path, **rest)


def test_a_failed_pipeline_goes_on_where_it_was(
    videos: list[Path], plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, exchange = tmp_path / "store", tmp_path / "exchange"
    beam = BeamConfig(flags=FLAGS, exchange=str(exchange))
    with monkeypatch.context() as patch:
        patch.setattr("data_pipelines.frame_build.store_video", store_till_third)
        with pytest.raises(InputError, match="the Beam pipeline failed, run again .* lost"):
            build(videos, out, beam=beam)
    assert not out.exists()
    (kept,) = exchange.iterdir()
    stored = {path: path.stat().st_mtime_ns for path in kept.glob("*.array_record")}
    assert 1 <= len(stored) < 3
    taken: list[str] = []
    put = frames_on_beam._put

    def note(source: epath.Path, folder: epath.Path, name: str) -> None:
        if folder == epath.Path(kept):
            taken.append(name)
        put(source, folder, name)

    monkeypatch.setattr(frames_on_beam, "_put", note)
    build(videos, out, beam=beam)
    assert contents(out) == plain
    assert not {path.name for path in stored} & set(taken)  # what was there was not done again


def hang(path: VideoPath, **rest: Any) -> Any:
    if path.name == "a.mp4":
        time.sleep(60)
    return store_video(path, **rest)


@pytest.mark.slow
def test_a_video_that_takes_too_long_is_set_aside(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipelines.frame_build.store_video", hang)
    build(videos[:2], tmp_path / "store", beam=BeamConfig(flags=FLAGS), seconds=8.0)
    (line,) = (tmp_path / "store" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == os.fspath(videos[0])
    assert "not done after 8 s" in json.loads(line)["reason"]


def test_workers_and_this_process_meet_in_a_bucket(
    videos: list[Path],
    plain: dict[str, bytes],
    tmp_path: Path,
    bucket: epath.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames_on_beam, "POLL_SECONDS", 0.01)  # asks before anything is told
    beam = BeamConfig(flags=FLAGS, exchange=str(bucket / "exchange"))
    build(videos, tmp_path / "store", beam=beam)
    assert contents(tmp_path / "store") == plain
    assert not (bucket / "exchange").exists()
