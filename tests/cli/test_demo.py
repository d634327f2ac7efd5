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

from benchmarks.runner import read_records
from data_pipelines.artefacts import read_manifest
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import read_pairs
from data_pipelines.synthetic import read_truth
from data_pipelines.synthetic_events import HELDOUT_THINGS
from tests.data_pipelines.grammar_by_hand import understand
from tpo_jax.api import load
from tpo_jax.cli import curate, demo, experiment, export, frames, reference, train
from tpo_jax.cli.config import load_config
from tpo_jax.cli.main import main
from tpo_jax.cli.progress import Update, stage_progress
from tpo_jax.cli.settings import read_settings
from tpo_jax.interop.reader import read_checkpoint
from tpo_jax.training.checkpoints import read_params, stored_params
from tpo_jax.training.loop import CHECKPOINTS_FOLDER
from tpo_jax.training.run_log import read_metrics

STEPS = 4
SMALL = [
    "--config.synthetic.train=5",
    "--config.synthetic.development=1",
    "--config.synthetic.heldout=3",
    "--config.curate.pairs=16",
    "--config.curate.comprehensive_per_video=3",
    f"--config.train.steps={STEPS}",
    "--config.train.save_every=2",
    "--config.train.batch_pairs=8",
    "--config.workers=1",
    "--config.mesh.data=8",
    "--config.mesh.fsdp=1",
    "--config.arms.seeds=1",
]
MODELS = ("base", "sft_0", "random_0", "tpo_0")


def run_demo(folder: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "keep_compiled", lambda settings: None)  # the tests keep their own
        return main(["demo", f"--config.run_dir={folder}", *SMALL])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that ran undisturbed."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    assert run_demo(folder) == 0
    return folder


def test_the_demo_leaves_numbers_and_a_page(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    whole = summary["whole"]
    assert (whole["items"], whole["videos"]) == (3 * 6, 3)
    assert list(whole["accuracy"]) == ["base", "sft", "random", "tpo"]
    pairs = ["tpo - base", "tpo - sft", "tpo - random", "sft - base"]
    assert list(whole["difference"]) == pairs
    assert set(summary["taken"]["removed"]) == {"base", "tpo"} and set(summary["gold"]) == {"base"}
    assert summary["pairs"]["audit"][0]["after"] == "asked"
    assert {arm: told["steps"] for arm, told in summary["training"].items()} == {
        "sft": STEPS, "random": STEPS, "tpo": STEPS
    }  # fmt: skip
    first = {arm: told["first"] for arm, told in summary["training"].items()}
    for arm in ("random", "tpo"):
        assert first[arm]["dpo_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert "dpo_loss" not in first["sft"]
    page = (finished / "report.html").read_text()
    for part in ("TPO and SFT", "data:image/jpeg", "chosen:", "rejected:", "localized"):
        assert part in page
    assert all(
        name in page for name in ("base", "SFT", "random negatives", "Where the models look")
    )
    assert "<script" not in page
    assert not re.search(r"(src|href)=.https?:", page)  # nothing is loaded from outside
    seconds = json.loads((finished / "seconds.json").read_text())
    stages = ["videos", "frames", "curate", "arms", "eval", "export", "needle", "report"]
    assert list(seconds) == stages


def test_the_splits_share_no_video_and_no_thing_that_is_held_out(finished: Path) -> None:
    splits = [sorted((finished / "videos" / s).iterdir()) for s in demo.SHOWN]
    contents = [path.read_bytes() for split in splits for path in split]
    assert len(set(contents)) == len(contents) == 5 + 3
    unseen = {}
    for split in demo.SHOWN:
        told = read_truth(finished / "truth" / f"{split}.json").values()
        events = [shown.event for timeline in told for shown in timeline]
        unseen[split] = {(event.colour, event.floor) for event in events} & HELDOUT_THINGS
    assert unseen["heldout"] and not unseen["train"]


def test_every_model_is_asked_the_same(finished: Path) -> None:
    asked = {}
    for label in MODELS:
        records = read_records(finished / "eval" / "heldout" / "whole" / label / "answers.jsonl")
        asked[label] = [(record.item, record.asked) for record in records]
        assert len({record.model for record in records}) == 1
    assert len(asked["base"]) == 18 and all(one == asked["base"] for one in asked.values())
    removed = finished / "eval" / "heldout" / "removed"
    assert sorted(path.name for path in removed.iterdir()) == ["base", "tpo_0"]
    assert len(read_records(removed / "tpo_0" / "answers.jsonl")) == 3 * 3  # that have a segment


def test_every_pair_trains_on_the_whole_video(finished: Path) -> None:
    store = FrameStore.open(finished / "frames")
    pairs = read_pairs(finished / "pairs" / "pairs.jsonl")
    assert pairs
    for pair in pairs:
        assert pair.chosen != pair.rejected
        assert not set(pair.chosen_frames) & set(pair.rejected_frames) or pair.segment is None
        assert pair.video_id in store.videos
        assert understand(pair.question)[1] < 2  # the last wording is for held-out videos
    for label in MODELS[1:]:
        manifest = read_manifest(finished / "arms" / label / "train", "train")
        assert manifest["made_from"]["train_frames"] == 32


def test_arms_differ_in_what_they_say_they_differ_in(finished: Path) -> None:
    own = read_pairs(finished / "pairs" / "pairs.jsonl")
    of_arm = {
        label: read_pairs(finished / "arms" / label / "pairs" / "pairs.jsonl")
        for label in MODELS[1:]
    }
    assert of_arm["tpo_0"] == of_arm["sft_0"] == own
    chosen = {pair.id: pair.chosen for pair in own}
    assert {pair.negative for pair in of_arm["random_0"]} == {"random"}
    assert all(pair.chosen == chosen[pair.id] != pair.rejected for pair in of_arm["random_0"])
    made = {path.parent.name for path in finished.glob("arms/*/reference")}
    assert made == {"random_0", "tpo_0"}
    assert [path.parent.name for path in finished.glob("arms/*/export")] == ["tpo_0"]


def test_running_again_changes_nothing(finished: Path) -> None:
    def state() -> dict[str, int]:
        kept = [p for p in finished.rglob("*") if p.is_file() and p.parent != finished]
        return {str(path): path.stat().st_mtime_ns for path in kept}

    before, summary = state(), (finished / "summary.json").read_bytes()
    assert run_demo(finished) == 0
    assert state() == before
    assert (finished / "summary.json").read_bytes() == summary


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_summary(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []

    @contextmanager
    def stopping(title: str, total: int) -> Iterator[Update]:
        """Once in every stage, stop after the first item; of eval, once in every view."""
        stage = title.split(":")[0] if title.startswith("eval") else title.split(" ")[0]
        with stage_progress(title, total) as update:

            def update_or_stop(done: int, detail: str = "") -> None:
                update(done, detail)
                if stage not in stopped:
                    stopped.append(stage)
                    raise KeyboardInterrupt

            yield update_or_stop

    for module in (curate, demo, experiment, export, frames, reference, train):
        monkeypatch.setattr(module, "stage_progress", stopping)
    folder = tmp_path / "run"
    codes: list[int] = []
    while not codes or codes[-1] == 130:
        codes.append(run_demo(folder))
    views = [f"eval heldout, {view}" for view in ("whole", "gold", "removed")]
    assert sorted(stopped) == sorted(
        ["videos:", "frames", "curate", "train", "reference", *views, "export"]
    )
    assert codes == [130] * len(stopped) + [0]
    assert (folder / "summary.json").read_bytes() == (finished / "summary.json").read_bytes()
    assert not list(folder.rglob("*.partial"))


@pytest.mark.slow
def test_the_audit_takes_frames_away(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    arguments = ["eval", "--counterfactual=removed", f"--config.run_dir={folder}", *SMALL]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    removed = folder / "eval" / "heldout" / "removed"
    assert sorted(path.name for path in removed.iterdir()) == sorted(MODELS)  # all arms, when asked
    assert read_manifest(removed / "sft_0", "eval")["made_from"]["view"]["taken"] == "removed"
    summary, before = (json.loads((one / "summary.json").read_text()) for one in (folder, finished))
    assert summary["whole"] == before["whole"]
    for arm, accuracy in summary["whole"]["accuracy"].items():
        of_arm = summary["taken"]["removed"][arm]["localized"]
        assert of_arm["whole"] == accuracy["localized"]
        lost = of_arm["whole"]["value"] - of_arm["without"]["value"]
        assert of_arm["difference"]["value"] == pytest.approx(lost)
    assert "Is it grounding?" in (folder / "report.html").read_text()
    kept = (removed / "sft_0" / "answers.jsonl").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (removed / "sft_0" / "answers.jsonl").stat().st_mtime_ns == kept
    assert capsys.readouterr().out == told


def test_no_stage_before_eval_needs_the_truth(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    (tmp_path / "arms").symlink_to(finished / "arms")
    experiment.train_arms(read_settings(load_config("demo", arguments)))  # done, and known as such
    capsys.readouterr()
    assert main(["eval", *arguments]) == 2
    assert "heldout.json: not found" in capsys.readouterr().err


def test_the_export_is_a_checkpoint_like_any_other(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = next((finished / "videos" / "heldout").iterdir())
    question = "Which thing follows the red thing?"
    exported = finished / "arms" / "tpo_0" / "export"
    assert main(["ask", str(video), question, f"--checkpoint={exported}"]) == 0
    assert capsys.readouterr().out.strip()


def test_the_export_holds_the_trained_weights(finished: Path, tmp_path: Path) -> None:
    arguments = [f"--config.run_dir={tmp_path}", "--config.export.dtype=float32", *SMALL]
    trained_at = finished / "arms" / "tpo_0" / "train"
    (tmp_path / "train").symlink_to(trained_at)
    assert main(["export", *arguments]) == 0
    trained = read_params(trained_at / CHECKPOINTS_FOLDER)
    exported = read_checkpoint(tmp_path / "export").params
    base = load("demo_base").params
    same = jax.tree.map(np.array_equal, trained, exported)
    assert all(jax.tree.leaves(same))
    moved = jax.tree.map(lambda one, other: not np.array_equal(one, other), exported, base)
    assert all(jax.tree.leaves(moved["language"])) and not any(jax.tree.leaves(moved["vision"]))


def test_an_earlier_step_is_exported_when_asked_for(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--config.run_dir={tmp_path}", "--config.export.dtype=float32", *SMALL]
    trained_at = finished / "arms" / "tpo_0" / "train"
    (tmp_path / "train").symlink_to(trained_at)
    assert main(["export", str(tmp_path / "early"), "--step=2", *arguments]) == 0
    early = stored_params(trained_at / CHECKPOINTS_FOLDER, 2)
    exported = read_checkpoint(tmp_path / "early").params
    same = jax.tree.map(lambda one, other: np.array_equal(np.asarray(one), other), early, exported)
    assert all(jax.tree.leaves(same))
    line = refused(capsys, "export", tmp_path, "--step=3")
    assert "has no checkpoint of step 3; there are: 2, 4" in line
    assert "keep_best_by" in refused(capsys, "export", tmp_path, "--step=best")
    assert "neither a number of steps nor best" in refused(capsys, "export", tmp_path, "--step=x")


@pytest.mark.parametrize("label", ["random_0", "tpo_0"])
def test_reward_margin_grows(finished: Path, label: str) -> None:
    """A few steps on few pairs: the policy must lean towards the chosen answers it has seen."""
    margins = [one["reward_margin"] for one in read_metrics(finished / "arms" / label / "train")]
    assert len(margins) == STEPS and np.mean(margins[-2:]) > np.mean(margins[:2])


def test_what_is_compiled_is_kept_with_the_run(tmp_path: Path) -> None:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        jax.config.update(names[0], None)
        demo.keep_compiled(read_settings(load_config("demo", [f"--config.run_dir={tmp_path}"])))
        assert getattr(jax.config, names[0]) == str(tmp_path / "compiled")
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


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
    run, arm = tmp_path / "run", tmp_path / "arm"
    for artefact in ("frames", "pairs"):
        shutil.copytree(finished / artefact, run / artefact)
    shutil.copytree(finished / "frames", arm / "frames")
    for artefact in ("pairs", "reference"):
        shutil.copytree(finished / "arms" / "tpo_0" / artefact, arm / artefact)

    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = state()
    line = refused(capsys, "curate", run, "--config.frames.fps=1.0")
    assert "frame_policy.fps: found 2.0, expected 1.0" in line
    line = refused(capsys, "curate", run, "--config.curate.sparse_frames=2")
    assert "curate.sparse_frames: found 4, expected 2" in line and "delete" in line
    line = refused(capsys, "train", arm, "--config.train_frames=16")
    assert "train_frames: found 32, expected 16" in line and "tpo reference" in line
    assert state() == before and not list(tmp_path.rglob("*.partial"))

    shutil.copytree(finished / "arms" / "tpo_0" / "train", arm / "train")
    line = refused(capsys, "train", arm, "--config.loss.beta=0.3")
    assert "loss.beta: found 0.1, expected 0.3" in line
    assert not list(tmp_path.rglob("*.partial"))
