"""Curation and eval by two processes say what one says, and write it once."""

import json
import shutil
from pathlib import Path

import pytest

from data_pipelines.artefacts import read_manifest
from data_pipelines.synthetic import write_videos
from tests.benchmarks.made_tasks import write_task
from tests.parallel.processes import run_processes
from tpo_jax.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_training")]
VIDEOS = 3
SCRIPT = """
import json
import sys
from tpo_jax.cli.main import main

for command in json.loads(sys.argv[1]):
    if code := main(command):
        sys.exit(code)
"""


def commands(root: Path, run: str, data: Path) -> dict[str, list[str]]:
    config = [
        f"--config.run_dir={root / run}",
        f"--config.videos={root / 'videos'}",
        f"--config.frames_dir={root / 'frames'}",
        f"--config.eval.videos={root / 'videos'}",
        f"--config.eval.truth={root / 'truth.json'}",
        "--config.eval.frames=8",
        "--config.eval.localized_per_video=2",
        "--config.eval.comprehensive_per_video=1",
        "--config.curate.comprehensive_per_video=3",
        "--config.sampling.max_new_tokens=12",
        "--config.loss.dpo_weight=0",
        "--config.train.steps=1",
        "--config.train_frames=4",
        "--config.workers=1",
    ]
    tasks = ["--tasks=own", f"--data={data}", f"--videos={root / 'videos'}"]
    tasks += [f"--out={root / run / 'scores'}", "--set=frames=4", "--set=max_new_tokens=4"]
    return {
        "frames": ["frames", *config],
        "curate": ["curate", *config],
        "train": ["train", *config],
        "eval": ["eval", *config],
        "tasks": ["eval", *tasks, *config],
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Run folders of one process and of two."""
    root = tmp_path_factory.mktemp("hosts")
    write_videos(root / "videos", root / "truth.json", count=VIDEOS, events=(4, 5), seed=5)
    names = [path.stem for path in sorted((root / "videos").iterdir())]
    data = write_task(root / "data", "own", names)
    for verb, command in commands(root, "one", data).items():
        assert main(command) == 0, verb
    shutil.copytree(root / "one" / "train", root / "two" / "train")
    wanted = [commands(root, "two", data)[verb] for verb in ("curate", "eval", "tasks")]
    run_processes(["-c", SCRIPT, json.dumps(wanted)], processes=2, seconds=500)
    return root / "one", root / "two"


def test_the_same_pairs_are_made(runs: tuple[Path, Path]) -> None:
    one, two = (run / "pairs" for run in runs)
    for name in ("pairs.jsonl", "dropped.jsonl", "captions.jsonl", "manifest.json"):
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    for stage in ("captions", "answers"):
        lines = [
            (runs[1] / "curation" / f"{stage}.host_{number}.jsonl").read_text().count("\n")
            for number in range(2)
        ]
        assert min(lines) > 0 and sum(lines) % VIDEOS == 0
        assert not (runs[1] / "curation" / f"{stage}.jsonl").exists()
    assert (runs[1] / "curation.html").exists()


def test_the_same_is_answered_about_own_videos(runs: tuple[Path, Path]) -> None:
    one, two = (run / "eval" for run in runs)
    assert read_manifest(two, "eval")["scores"] == read_manifest(one, "eval")["scores"]
    for label in ("base", "tpo"):
        lines = [sorted((of / f"{label}.jsonl").read_text().splitlines()) for of in (one, two)]
        assert lines[0] == lines[1] and len(lines[0]) == 3 * VIDEOS
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}


def test_the_same_is_answered_of_a_benchmark(runs: tuple[Path, Path]) -> None:
    one, two = (run / "scores" / "own" for run in runs)
    assert (two / "items.jsonl").read_bytes() == (one / "items.jsonl").read_bytes()
    assert read_manifest(two, "scores")["scores"] == read_manifest(one, "scores")["scores"]
    answered = [(two / f"answers.{part}-of-2.jsonl").read_text().count("\n") for part in (1, 2)]
    assert min(answered) > 0 and (two.parent / "result.json").exists()
