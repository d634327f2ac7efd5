"""`tpo frames`: what it would take, the store, and whether it is whole."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipelines.frames import FrameStore
from tests.data_pipelines.conftest import make_video  # noqa: F401
from tpo_jax.cli.main import main

OPTIONS = ["--config=demo", "--config.workers=1", "--time-limit=60"]


@pytest.fixture
def videos(tmp_path: Path, make_video: Callable[..., Path]) -> Path:  # noqa: F811
    for name in ("a.mp4", "b.mp4"):
        make_video(tmp_path / "videos" / name, count=50, first=ord(name[0]))
    (tmp_path / "videos" / "empty.mp4").touch()
    names = tmp_path / "names.txt"
    names.write_text("videos/a.mp4\nvideos/empty.mp4\nvideos/b.mp4\n")
    return names


def test_dry_run_then_store_then_check(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    where = ["frames", str(videos), str(out), *OPTIONS]
    assert main([*where, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == 2 and len(told["refused"]) == 1
    assert main([*where, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 of 3" in said and "empty.mp4: file is empty" in said and "tokens" in said
    assert not out.exists()

    assert main([*where, "--encoding=jpeg_q95"]) == 0
    assert "1 of 3 files set aside" in capsys.readouterr().out
    store = FrameStore.open(out)
    assert store.lossy and told["frames"] == sum(len(store.info(v).times_F) for v in store.videos)
    assert main([*where, "--check"]) == 0
    assert "all 2 videos are as they were stored" in capsys.readouterr().out

    shard = next(out.glob("frames-train*"))
    data = bytearray(shard.read_bytes())
    data[400] ^= 1
    shard.write_bytes(data)
    assert main([*where, "--check"]) == 2
    error = capsys.readouterr().err
    assert f"{shard.name} has changed, record 0" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["nowhere"], "no such folder or file"),
        (["--time-limit=0"], "give a number of seconds"),
        (["--check", "--dry-run"], "not allowed with"),
        (["--check", "videos", "nowhere"], "nowhere"),
        (["--exchange=here"], "--exchange=here: only used with --beam"),
        (["--beam=runner"], "--beam: 'runner' is no flag"),
        (["--beam='--runner"], "quote it as a shell would"),
    ],
)
def test_mistakes(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frames", *OPTIONS, *more]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_beam_by_flags(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("apache_beam")
    where = ["frames", str(videos), str(tmp_path / "store"), *OPTIONS]
    beam = ["--beam=--runner=BundleBasedDirectRunner", f"--exchange={tmp_path / 'exchange'}"]
    assert main([*where, *beam]) == 0
    assert "1 of 3 files set aside" in capsys.readouterr().out
    assert len(FrameStore.open(tmp_path / "store").videos) == 2


def test_beam_that_is_not_installed(
    tmp_path: Path,
    videos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert main(["frames", str(videos), str(tmp_path / "store"), *OPTIONS, "--beam="]) == 2
    assert "pip install 'tpo_jax[beam]'" in capsys.readouterr().err
