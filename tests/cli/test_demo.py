"""All of TPO on a few videos, through the command line: run, run again, killed, and its export."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.artefacts import read_manifest
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import read_pairs
from tpo_jax.api import load
from tpo_jax.cli import curate, demo, export, frames, reference, train
from tpo_jax.cli import eval as eval_verb
from tpo_jax.cli.main import main
from tpo_jax.cli.progress import Update, stage_progress
from tpo_jax.interop.reader import read_checkpoint
from tpo_jax.training.checkpoints import read_params
from tpo_jax.training.loop import CHECKPOINTS_FOLDER

SMALL = [
    "--config.synthetic.train=8",
    "--config.synthetic.development=1",
    "--config.synthetic.heldout=3",
    "--config.curate.pairs=24",
    "--config.train.steps=6",
    "--config.train.save_every=2",
    "--config.train.batch_pairs=8",
    "--config.workers=1",
    "--config.mesh.data=8",
    "--config.mesh.fsdp=1",
]


def run_demo(folder: Path) -> int:
    return main(["demo", f"--config.run_dir={folder}", *SMALL])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that ran undisturbed."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    assert run_demo(folder) == 0
    return folder


def test_the_demo_leaves_numbers_and_a_page(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["scores"]["items"] == 3 * 8
    assert set(summary["scores"]["accuracy"]) == {"base", "tpo"}
    assert summary["training"]["steps"] == 6
    assert summary["training"]["first"]["dpo_loss"] == pytest.approx(math.log(2), abs=1e-4)
    page = (finished / "report.html").read_text()
    for part in ("Reward margin", "data:image/jpeg", "chosen:", "rejected:", "localized"):
        assert part in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=.https?:", page)  # nothing is loaded from outside


def test_the_splits_share_no_video(finished: Path) -> None:
    splits = [sorted((finished / "videos" / s).iterdir()) for s in demo.SPLITS]
    contents = [path.read_bytes() for split in splits for path in split]
    assert len(set(contents)) == len(contents) == 8 + 1 + 3


def test_every_pair_trains_on_the_whole_video(finished: Path) -> None:
    store = FrameStore.open(finished / "frames")
    pairs = read_pairs(finished / "pairs" / "pairs.jsonl")
    assert pairs
    for pair in pairs:
        assert pair.chosen != pair.rejected
        assert not set(pair.chosen_frames) & set(pair.rejected_frames) or pair.segment is None
        assert pair.video_id in store.videos
    manifest = read_manifest(finished / "train", "train")
    assert manifest["made_from"]["train_frames"] == 32


def test_running_again_changes_nothing(finished: Path) -> None:
    def state() -> dict[str, int]:
        kept = [p for p in finished.rglob("*") if p.is_file() and p.parent != finished]
        return {str(path): path.stat().st_mtime_ns for path in kept}

    before, summary = state(), (finished / "summary.json").read_bytes()
    assert run_demo(finished) == 0
    assert state() == before
    assert (finished / "summary.json").read_bytes() == summary


def test_killed_in_every_stage_it_ends_with_the_same_summary(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []

    @contextmanager
    def stopping(title: str, total: int) -> Iterator[Update]:
        """Once in every stage, stop after the first item."""
        with stage_progress(title, total) as update:

            def update_or_stop(done: int, detail: str = "") -> None:
                update(done, detail)
                if title not in stopped:
                    stopped.append(title)
                    raise KeyboardInterrupt

            yield update_or_stop

    for module in (curate, demo, eval_verb, export, frames, reference, train):
        monkeypatch.setattr(module, "stage_progress", stopping)
    folder = tmp_path / "run"
    codes: list[int] = []
    while not codes or codes[-1] == 130:
        codes.append(run_demo(folder))
    # Three splits of videos, two stores, curate, reference, train, two models, export.
    assert codes == [130] * 11 + [0], stopped
    assert (folder / "summary.json").read_bytes() == (finished / "summary.json").read_bytes()
    assert not list(folder.rglob("*.partial"))


def test_the_audit_takes_frames_away(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    arguments = ["eval", "--counterfactual=removed", f"--config.run_dir={folder}", *SMALL]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "whole less removed" in told and "localized" in told
    manifest = read_manifest(folder / "eval_removed", "eval")
    assert manifest["made_from"]["view"] == "removed"
    for label, scores in manifest["scores"].items():
        assert scores["items"] == 3 * 4  # those that have a segment
        whole = read_manifest(finished / "eval", "eval")["scores"]["accuracy"][label]
        assert scores["accuracy"]["whole"]["localized"] == whole["localized"]
    kept = (folder / "eval_removed" / "base.jsonl").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (folder / "eval_removed" / "base.jsonl").stat().st_mtime_ns == kept
    assert capsys.readouterr().out == told


def test_no_stage_before_eval_needs_the_truth(finished: Path, tmp_path: Path) -> None:
    arguments = [
        f"--config.run_dir={tmp_path}",
        f"--config.videos={finished / 'videos' / 'train'}",
        f"--config.eval.truth={tmp_path / 'no_truth.json'}",
        *SMALL,
    ]
    for verb in ("frames", "curate"):  # the rest reads what these two leave
        assert main([verb, *arguments]) == 0
    pairs = (tmp_path / "pairs" / "pairs.jsonl").read_bytes()
    assert pairs == (finished / "pairs" / "pairs.jsonl").read_bytes()
    (tmp_path / "train").symlink_to(finished / "train")
    assert main(["eval", *arguments, f"--config.eval.videos={finished / 'videos/heldout'}"]) == 2


def test_the_export_is_a_checkpoint_like_any_other(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = next((finished / "videos" / "heldout").iterdir())
    question = "What comes first in the video?"
    assert main(["ask", str(video), question, f"--checkpoint={finished / 'export'}"]) == 0
    assert capsys.readouterr().out.strip()


def test_the_export_holds_the_trained_weights(finished: Path, tmp_path: Path) -> None:
    arguments = [f"--config.run_dir={tmp_path}", "--config.export.dtype=float32", *SMALL]
    (tmp_path / "train").symlink_to(finished / "train")
    assert main(["export", *arguments]) == 0
    trained = read_params(finished / "train" / CHECKPOINTS_FOLDER)
    exported = read_checkpoint(tmp_path / "export").params
    base = load("demo_base").params
    same = jax.tree.map(np.array_equal, trained, exported)
    assert all(jax.tree.leaves(same))
    moved = jax.tree.map(lambda one, other: not np.array_equal(one, other), exported, base)
    assert all(jax.tree.leaves(moved["language"])) and not any(jax.tree.leaves(moved["vision"]))


def test_reward_margin_grows(finished: Path) -> None:
    """Six steps on few pairs: the policy must lean towards the chosen answers it has seen."""
    lines = (finished / "train" / "metrics.jsonl").read_text().split("\n")[:-1]
    margins = [json.loads(line)["reward_margin"] for line in lines]
    assert np.mean(margins[-2:]) > np.mean(margins[:2])


def refused(capsys: pytest.CaptureFixture[str], verb: str, run_dir: Path, *arguments: str) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    code = main([verb, f"--config.run_dir={run_dir}", *SMALL, *arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert code == 2 and len(lines) == 1, lines
    assert lines[0].startswith(f"tpo {verb}: error: ")
    return lines[0]


def test_artefacts_of_another_config_are_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for artefact in ("frames", "pairs", "reference"):
        shutil.copytree(finished / artefact, run / artefact)

    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = state()
    line = refused(capsys, "curate", run, "--config.frames.fps=1.0")
    assert "frame_policy.fps: found 2.0, expected 1.0" in line
    line = refused(capsys, "curate", run, "--config.curate.sparse_frames=2")
    assert "curate.sparse_frames: found 4, expected 2" in line and "delete" in line
    line = refused(capsys, "train", run, "--config.train_frames=16")
    assert "train_frames: found 32, expected 16" in line and "tpo reference" in line
    assert state() == before and not list(run.glob("*.partial"))

    shutil.copytree(finished / "train", run / "train")
    line = refused(capsys, "train", run, "--config.loss.beta=0.3")
    assert "loss.beta: found 0.1, expected 0.3" in line
    assert not list(run.glob("*.partial"))
