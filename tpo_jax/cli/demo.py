"""`tpo demo`: all of TPO, from making the videos to the report."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data_pipelines.artefacts import write_json
from data_pipelines.synthetic import write_videos
from tpo_jax.cli import curate, export, frames, reference, report, train
from tpo_jax.cli import eval as eval_verb
from tpo_jax.cli.progress import duration_text, stage_progress
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.parallel.mesh import check_batch, make_mesh

SPLITS = ("train", "development", "heldout")  # each with a seed of its own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Stages: videos, frames, curate, reference, train, eval, export, report. Each leaves its "
        "artefact in RUN_DIR. What is there is not done again: a killed demo goes on where it was. "
        "With config.loss.dpo_weight=0 there is no stage reference."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run every stage, one after another."""
    settings = read_settings(config)
    # A mesh that cannot be is better said now than after minutes of curation.
    check_batch(make_mesh(settings.mesh), settings.train.batch_pairs)
    stages: dict[str, Callable[[RunConfig], object]] = {
        "videos": make_videos,
        "frames": frames.make_frames,
        "curate": curate.make_pairs,
        "reference": reference.make_reference,
        "train": train.train_policy,
        "eval": eval_verb.evaluate,
        "export": export.export_policy,
        "report": report.make_report,
    }
    if not settings.loss.needs_reference:
        del stages["reference"]
    started = time.monotonic()
    spent: dict[str, float] = {}
    for name, stage in stages.items():
        begun = time.monotonic()
        stage(settings)
        spent[name] = time.monotonic() - begun
    _add_times(Path(settings.run_dir) / "seconds.json", spent)
    print(f"took {duration_text(time.monotonic() - started)}")


def make_videos(settings: RunConfig, splits: Sequence[str] = SPLITS) -> None:
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


def _add_times(path: Path, spent: dict[str, float]) -> None:
    """Seconds by stage over all runs of this folder. Not in the summary: that is repeatable."""
    before = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {name: before.get(name, 0.0) + seconds for name, seconds in spent.items()})
