"""`tpo demo`: all of TPO, from making the videos to the report, beside its controls."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data_pipelines.artefacts import write_json
from data_pipelines.synthetic import write_videos
from tpo_jax.cli import curate, export, frames
from tpo_jax.cli.arms import arm_settings
from tpo_jax.cli.eval_needle import demo_map
from tpo_jax.cli.experiment import (
    BASE,
    GOLD,
    TAKEN,
    WHOLE,
    ask_arms,
    needle_folder,
    open_exam,
    train_arms,
)
from tpo_jax.cli.experiment_page import make_experiment_report
from tpo_jax.cli.hosts import keep_compiled
from tpo_jax.cli.progress import duration_text, stage_progress
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.parallel.mesh import check_batch, make_mesh

SPLITS = ("train", "development", "heldout")  # each with a seed of its own
# Development videos are for choosing settings: `python -m benchmarks.ablation --split=development`.
SHOWN = ("train", "heldout")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Stages: videos, frames, curate, arms (for every arm and seed: reference and train), eval, "
        "export, needle, report. Arms are TPO and what it is compared with: config.arms.names and "
        "config.arms.seeds. Each stage leaves its artefact in RUN_DIR. What is there is not done "
        "again: a killed demo goes on where it was. More arms and questions: "
        "python -m benchmarks.ablation --help."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run every stage, one after another."""
    settings = read_settings(config)
    # A mesh that cannot be is better said now than after minutes of curation.
    check_batch(make_mesh(settings.mesh), settings.train.batch_pairs)
    keep_compiled(settings)
    stages: dict[str, Callable[[RunConfig], object]] = {
        "videos": make_videos,
        "frames": frames.make_frames,
        "curate": curate.make_pairs,
        "arms": train_arms,
        "eval": ask_everyone,
        "export": export_one,
        "needle": find_needles,
        "report": report_heldout,
    }
    started = time.monotonic()
    spent: dict[str, float] = {}
    for name, stage in stages.items():
        begun = time.monotonic()
        stage(settings)
        spent[name] = time.monotonic() - begun
    _add_times(Path(settings.run_dir) / "seconds.json", spent)
    print(f"took {duration_text(time.monotonic() - started)}")


def make_videos(settings: RunConfig, splits: Sequence[str] = SHOWN) -> None:
    """Write the videos of splits beside each other, and their truth where only eval looks."""
    root = Path(settings.run_dir)
    for split in splits:
        count = getattr(settings.synthetic, split)
        with stage_progress(f"videos: {split}", count) as update:
            write_videos(
                root / "videos" / split,
                root / "truth" / f"{split}.json",
                count=count,
                events=settings.synthetic.events,
                seed=1000 * settings.seed + SPLITS.index(split),
                heldout_things=split == "heldout",
                progress=lambda done, total, detail: update(done, detail),
            )
            update(count)


def ask_everyone(settings: RunConfig) -> None:
    """Ask the models of all arms about the held-out videos, and TPO and its base once more
    without the segment.
    """
    exam = open_exam(settings, "heldout")
    ask_arms(settings, exam, WHOLE, [BASE, *settings.arms.names])
    ask_arms(settings, exam, GOLD, [BASE])
    if "tpo" in settings.arms.names:
        ask_arms(settings, exam, TAKEN["removed"], [BASE, "tpo"])


def export_one(settings: RunConfig) -> None:
    """The method's first model (that of the last arm named) as PyTorch files."""
    export.export_policy(arm_settings(settings, settings.arms.names[-1], 0))


def find_needles(settings: RunConfig) -> None:
    """The needle map of the base and of the model that was exported."""
    method = settings.arms.names[-1]
    exported = arm_settings(settings, method, 0).folder("export")
    for arm, checkpoint in ((BASE, settings.checkpoint), (method, str(exported))):
        demo_map(checkpoint, needle_folder(settings, arm), settings)


def report_heldout(settings: RunConfig) -> None:
    """The page about the held-out videos."""
    make_experiment_report(settings, open_exam(settings, "heldout"))


def _add_times(path: Path, spent: dict[str, float]) -> None:
    """Seconds by stage over all runs of this folder. Not in the summary: that is repeatable."""
    before = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {name: before.get(name, 0.0) + seconds for name, seconds in spent.items()})
