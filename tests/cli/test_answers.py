"""SFT alone, through the command line: plain questions and answers in, a trained model out."""

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.artefacts import read_manifest
from data_pipelines.pairs import read_pairs, write_pairs
from data_pipelines.synthetic import write_videos
from tests.cli.test_demo import SMALL, refused
from tpo_jax.cli import curate, rows
from tpo_jax.cli.config import load_config
from tpo_jax.cli.main import main
from tpo_jax.cli.settings import read_settings
from tpo_jax.parallel.mesh import make_mesh
from tpo_jax.training.run_log import read_metrics

pytestmark = pytest.mark.usefixtures("quick_training")
STEPS = 3
SFT = [
    *[one for one in SMALL if "train.steps" not in one],
    f"--config.train.steps={STEPS}",
    "--config.train.warmup_ratio=0",
    "--config.loss.dpo_weight=0",
    "--config.train_frames=8",
    "--config.eval.frames=8",
    "--config.eval.localized_per_video=1",
    "--config.eval.comprehensive_per_video=1",
]
QUESTIONS = ("Which thing follows the red thing?", "Which thing does the red thing follow?")


def write_answers(path: Path, videos: Path) -> Path:
    """Two questions a video, each with an answer of its own."""
    lines = [
        {"video": video.name, "question": question, "answer": f"The {colour} thing."}
        for number, video in enumerate(sorted(videos.iterdir()))
        for question, colour in zip(QUESTIONS, ("red", "blue")[:: 1 - 2 * number], strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos in a store, and a file of four answers about them."""
    root = tmp_path_factory.mktemp("sft")
    write_videos(root / "videos", root / "truth.json", count=2, events=(4, 4), seed=5)
    assert main(["frames", *options(root)]) == 0
    write_answers(root / "told.jsonl", root / "videos")
    return root


def options(root: Path) -> list[str]:
    return [
        f"--config.run_dir={root / 'run'}",
        f"--config.videos={root / 'videos'}",
        f"--config.eval.videos={root / 'videos'}",
        f"--config.eval.truth={root / 'truth.json'}",
        *SFT,
    ]


@pytest.fixture(scope="module")
def trained(stored: Path) -> Path:
    """Curated from the file and trained, with no reference; returns the root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(curate, "load")  # no model is needed for what others have answered
        assert main(["curate", f"--answers={stored / 'told.jsonl'}", *options(stored)]) == 0
    assert main(["train", *options(stored)]) == 0
    return stored


def test_sft_learns_plain_answers_without_a_reference(trained: Path) -> None:
    run = trained / "run"
    pairs = read_pairs(run / "pairs" / "pairs.jsonl")
    assert len(pairs) == 4 and all(pair.rejected is None for pair in pairs)
    assert not (run / "reference").exists()
    assert read_manifest(run / "train", "train")["made_from"]["rows"][0]["answers"] == 1
    metrics = read_metrics(run / "train")
    assert len(metrics) == STEPS
    for line in metrics:
        assert line["loss"] == line["sft_loss"]
        assert not {"dpo_loss", "reward_margin", "logprob_rejected"} & line.keys()
    # Eight rows a step of four answers: every step sees them all, and the next knows them better.
    # Not so the second: the rate of the first step is zero.
    assert metrics[0]["learning_rate"] == 0
    losses = [line["loss"] for line in metrics[1:]]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]


def test_curating_again_changes_nothing(trained: Path) -> None:
    path = trained / "run" / "pairs" / "pairs.jsonl"
    before = path.stat().st_mtime_ns
    assert main(["curate", f"--answers={trained / 'told.jsonl'}", *options(trained)]) == 0
    assert path.stat().st_mtime_ns == before


def test_a_reference_is_refused_where_none_is_needed(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "reference", trained / "run", "--config.loss.dpo_weight=0")
    assert line.endswith("dpo_weight is 0, so no reference is needed; go on with `tpo train`")
    assert not list((trained / "run").glob("reference*"))


def test_a_loss_on_pairs_refuses_answers_alone(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = read_pairs(trained / "run" / "pairs" / "pairs.jsonl")[0].id
    line = refused(capsys, "reference", trained / "run")
    assert f"pair {first}: has no rejected answer" in line
    assert "config.loss.dpo_weight=0 trains on the chosen answers alone" in line
    assert not list((trained / "run").glob("*.partial"))


def test_the_loss_says_how_many_answers_a_row_holds(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for artefact in ("frames", "pairs"):
        shutil.copytree(trained / "run" / artefact, run / artefact)
    path = run / "pairs" / "pairs.jsonl"
    pairs = [replace(pair, rejected="Something else. " * 9) for pair in read_pairs(path)]
    write_pairs(path, pairs)
    monkeypatch.setattr(rows, "load", functools.cache(rows.load))
    made, told = {}, {}
    for weight in (0, 1):
        overrides = [*options(trained), f"--config.run_dir={run}"]
        config = load_config("demo", [*overrides, f"--config.loss.dpo_weight={weight}"])
        settings = read_settings(config)
        read = rows.read_rows(settings, "train", make_mesh(settings.mesh))
        made[weight], told[weight] = read.rows.row(0), read.made_from["rows"][0]
    assert made[0]["answers"].shape[0] == 1 and made[1]["answers"].shape[0] == 2
    assert (told[0]["answers"], told[1]["answers"]) == (1, 2)
    # Rejected answers that are there all the same do not even make the row longer.
    sft = read_manifest(trained / "run" / "train", "train")["made_from"]["rows"][0]
    assert told[0] == sft and told[1]["answer_tokens"] > sft["answer_tokens"]


def test_the_report_tells_what_was_learned(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("eval", "export", "report"):
        assert main([verb, *options(trained)]) == 0
    assert "SFT" in capsys.readouterr().out
    run = trained / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["fingerprints"]) == {"frames", "pairs", "train", "eval", "export"}
    page = (run / "report.html").read_text()
    for part in ("answer: The red thing.", "answers that it was given", "data:image/jpeg"):
        assert part in page
    for part in ("rejected:", "None", "TPO", "beta"):
        assert part not in page


def test_a_wrong_file_leaves_nothing(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stored / "run" / "frames", run / "frames")
    told = (stored / "told.jsonl").read_text()
    name = json.loads(told.split("\n")[0])["video"]
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(told + told.split("\n")[0].replace(name, f"x{name}") + "\n")
    arguments = [f"--config.videos={stored / 'videos'}", f"--answers={wrong}"]
    line = refused(capsys, "curate", run, *arguments)
    assert f"{wrong}:5: key 'video' is 'x{name}'" in line and f"did you mean '{name}'?" in line
    assert "nowhere.jsonl" in refused(capsys, "curate", run, "--answers=nowhere.jsonl")
    assert [path.name for path in run.iterdir()] == ["frames"]


def test_pairs_of_another_origin_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed.jsonl"
    changed.write_text((trained / "told.jsonl").read_text().split("\n")[0] + "\n")
    line = refused(capsys, "curate", trained / "run", f"--answers={changed}")
    assert "answers: found" in line and "delete" in line
    assert "answers: found" in refused(capsys, "curate", trained / "run")
    assert not list((trained / "run").glob("*.partial"))
