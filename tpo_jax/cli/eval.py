"""`tpo eval`: base and trained policy -> scores, on videos whose truth is known."""

import argparse
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from benchmarks.runner import Record, run_task, summarise
from benchmarks.tasks.item import Item
from benchmarks.tasks.synthetic import questions
from data_pipelines.artefacts import building, check_unfinished, file_sha256, write_manifest
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import train_frames
from data_pipelines.synthetic import read_truth
from tpo_jax.api import LoadedModel, load
from tpo_jax.cli.answering import make_answerer
from tpo_jax.cli.export import load_policy
from tpo_jax.cli.frames import store_videos
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Asks the checkpoint and the policy trained from it the same questions about "
        "config.eval.videos and writes RUN_DIR/eval. No other verb reads config.eval.truth."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    evaluate(read_settings(config))


def evaluate(settings: RunConfig) -> None:
    """Score both models; a video is a unit of work, done once."""
    base, policy = load(settings.checkpoint), load_policy(settings)
    store = store_videos(settings, settings.eval.videos, settings.folder("eval_frames"))
    truth = Path(settings.eval.truth)
    if not truth.exists():
        raise InputError(f"{truth}: not found; it tells what is in {settings.eval.videos}")
    made_from = {
        "base": base.fingerprint,
        "tpo": policy.fingerprint,
        "frames": store.fingerprint,
        "truth": file_sha256(truth)[:16],
        # Where the videos and the truth lie does not matter: what is in them is told above.
        "eval": {k: v for k, v in as_json(settings.eval).items() if k not in ("videos", "truth")},
        "prompts": as_json(settings.prompts),
        "sampling": as_json(settings.sampling),
        "compute_dtype": settings.compute_dtype,
    }
    items = questions(
        read_truth(truth),
        seed=settings.eval.seed,
        localized_per_video=settings.eval.localized_per_video,
        comprehensive_per_video=settings.eval.comprehensive_per_video,
    )
    out = settings.folder("eval")
    if is_done(out, "eval", made_from):
        return
    with building(out, resume=True) as partial:
        check_unfinished(partial, made_from)
        records = {
            label: _ask(settings, label, model, items, store, partial / f"{label}.jsonl")
            for label, model in (("base", base), ("tpo", policy))
        }
        write_manifest(partial, "eval", made_from, scores=summarise(items, records))


def _ask(
    settings: RunConfig,
    label: str,
    model: LoadedModel,
    items: list[Item],
    store: FrameStore,
    record: Path,
) -> list[Record]:
    ids = {name: video for video in store.videos for name in store.info(video).names}

    def frames_of(name: str) -> tuple[str, np.ndarray]:
        if name not in ids:
            raise InputError(f"{settings.eval.videos}: has no video {name}, which the truth names")
        stored = len(store.info(ids[name]).times_F)
        return ids[name], train_frames(stored, settings.eval.frames)

    videos = len({item.video for item in items})
    with stage_progress(f"eval {label}", videos) as update:
        return run_task(
            items,
            make_answerer(settings, model, store),
            frames_of,
            record,
            lambda done, total, detail: update(done, detail),
        )
