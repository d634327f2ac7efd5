"""What a user gets wrong: one line with the mend, exit code 2, nothing half-written."""

import shutil
from pathlib import Path

import pytest

from data_pipelines.synthetic import write_videos
from tests.cli.test_demo import SMALL, refused
from tpo_jax.cli.main import main

pytestmark = pytest.mark.usefixtures("quick_training")
REAL = Path(__file__).parents[2].parent / "shared" / "videos" / "dc_demo.mp4"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "videos"
    write_videos(folder, folder.parent / "truth.json", count=3, events=(4, 4), seed=5)
    return folder


@pytest.mark.parametrize(
    "content", [b"", b"this is no video " * 100, None], ids=["empty", "text", "cut off"]
)
def test_a_bad_video_alone(
    content: bytes | None, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    whole = next(videos.iterdir()).read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] if content is None else content)
    run = tmp_path / "run"
    assert "bad.mp4" in refused(capsys, "frames", run, f"--config.videos={bad}")
    assert not list(run.glob("*"))


def test_a_bad_video_among_good_ones_is_set_aside(videos: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(videos, mixed)
    (mixed / "bad.mp4").write_bytes(b"no video")
    run = tmp_path / "run"
    assert main(["frames", f"--config.run_dir={run}", f"--config.videos={mixed}", *SMALL]) == 0
    quarantine = (run / "frames" / "quarantine.jsonl").read_text()
    assert "bad.mp4" in quarantine and quarantine.count("\n") == 1


def test_no_video_in_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    line = refused(capsys, "frames", tmp_path / "run", f"--config.videos={tmp_path}")
    assert str(tmp_path) in line
    assert "nowhere" in refused(
        capsys, "frames", tmp_path / "run", f"--config.videos={tmp_path / 'nowhere'}"
    )
    assert not (tmp_path / "run").exists()


def test_a_missing_checkpoint(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (f"--config.videos={videos}", "--config.checkpoint=no_such_model")
    assert "no_such_model" in refused(capsys, "frames", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_stages_out_of_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("curate", "reference", "train", "eval", "export", "report"):
        line = refused(capsys, verb, tmp_path / "run")
        assert str(tmp_path / "run") in line
        assert "run" in line.partition("artefact")[2]  # the mend: which stage to run
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--config.train.learning_rte=1e-6", "train.learning_rate"),
        ("--config.train.beta=0.1", "loss.beta"),
        ("--config.train.learning_rate=fast", "train.learning_rate"),
        ("--config.compute_dtype=float16", "compute_dtype"),
        ("--config.mesh.tensor=3", "mesh"),
    ],
)
def test_a_config_that_is_wrong(
    override: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refused(capsys, "demo", tmp_path / "run", override)
    assert not (tmp_path / "run").exists()


def test_ask_about_no_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"text")
    assert main(["ask", str(tmp_path / "a.mp4"), "What?"]) == 2
    assert "a.mp4" in capsys.readouterr().err
    assert main(["ask", str(tmp_path / "b.mp4"), "What?"]) == 2
    assert "b.mp4" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not on this machine")
def test_a_real_video_goes_all_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        f"--config.run_dir={tmp_path}",
        f"--config.videos={REAL.parent}",
        *[one for one in SMALL if "train.steps" not in one],
        "--config.train.steps=2",
        # Few segments, few frames, and prompts of few lengths: few steps are compiled.
        "--config.train_frames=8",
        "--config.curate.segment_seconds=24.0",
        "--config.curate.dense_frames=8",
        "--config.curate.sparse_frames=3",
        "--config.curate.segment_frames=4",
    ]
    for verb in ("frames", "curate", "reference", "train", "export"):
        assert main([verb, "--config=own_videos", *arguments]) == 0
    capsys.readouterr()
    assert main(["ask", str(REAL), "What comes first in the video?"]) == 0
    assert capsys.readouterr().out.strip()
