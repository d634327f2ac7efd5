"""`tpo curate`: FrameStore -> pairs, out of the model or of a file of answers."""

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.answers import keep_answers, read_answers
from data_pipelines.artefacts import file_sha256, read_manifest
from data_pipelines.curation.judge import Judge, NoJudge, RuleJudge
from data_pipelines.curation.pipeline import Curator, curate
from data_pipelines.curation.questions import QuestionMaker, RuleQuestions, TimeQuestions
from tpo_jax.api import checkpoint_images, load
from tpo_jax.cli.answering import make_answerer
from tpo_jax.cli.frames import open_frames
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings

MAKERS: dict[str, tuple[QuestionMaker, Judge]] = {
    "rules": (RuleQuestions(), RuleJudge()),
    "time": (TimeQuestions(), NoJudge()),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "--answers",
        metavar="FILE",
        help="make no pairs but keep the questions and answers of this file, JSON lines with "
        '"video" (its name in the frame store), "question" and "answer"; for SFT alone '
        "(config.loss.dpo_weight=0)",
    )
    parser.epilog = (
        "Reads RUN_DIR/frames and the checkpoint, writes RUN_DIR/pairs: pairs.jsonl, dropped.jsonl "
        "with the reason for each, and a manifest with the counts. Killed and run again, it goes "
        "on with the next video."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    if args.answers is None:
        make_pairs(settings)
    else:
        take_answers(settings, Path(args.answers))


def take_answers(settings: RunConfig, path: Path) -> None:
    """Keep a file's questions and answers as RUN_DIR/pairs; no model is loaded.

    Raises:
      InputError: there is no frame store for the config, a line is wrong, or RUN_DIR/pairs was
        made from something else.
    """
    store = open_frames(settings, checkpoint_images(settings.checkpoint), "curate")
    pairs = read_answers(path, store)
    made_from = {"frames": store.fingerprint, "answers": file_sha256(path)[:16]}
    out = settings.folder("pairs")
    with stage_progress("curate", len(pairs)) as update:
        if is_done(out, "pairs", made_from):
            update(len(pairs), "done before")
        else:
            keep_answers(pairs, out, made_from)
            update(len(pairs))
    videos = len({pair.video_id for pair in pairs})
    print(f"{out}: {len(pairs)} answers about {videos} of {len(store.videos)} videos, from {path}")


def make_pairs(settings: RunConfig) -> None:
    """Curate the run's frames into RUN_DIR/pairs."""
    model = load(settings.checkpoint)
    store = open_frames(settings, model.images, "curate")
    maker, judge = MAKERS[settings.curate.questions]
    made_from = {
        "frames": store.fingerprint,
        "model": model.fingerprint,
        "prompts": as_json(settings.prompts),
        "sampling": as_json(settings.sampling),
        "compute_dtype": settings.compute_dtype,
        "curate": as_json(settings.curate),
        "seed": settings.seed,
        "questions": maker.name,
        "judge": judge.name,
    }
    out = settings.folder("pairs")
    with stage_progress("curate", len(store.videos)) as update:
        if is_done(out, "pairs", made_from):
            update(len(store.videos), "done before")
        else:
            curator = Curator(
                config=settings.curate,
                store=store,
                model=make_answerer(settings, model, store),
                maker=maker,
                judge=judge,
                sampling=as_json(settings.sampling),
            )
            curate(curator, out, made_from, lambda done, total, detail: update(done, detail))
    print(summary(out))


def summary(out: Path) -> str:
    """One line on the pairs of a folder."""
    manifest: dict[str, Any] = read_manifest(out, "pairs")
    mix = ", ".join(f"{count} {kind}" for kind, count in sorted(manifest["mix"].items()))
    dropped = ", ".join(f"{count} {name}" for name, count in sorted(manifest["dropped"].items()))
    return (
        f"{out}: {manifest['pairs']} pairs ({mix}) of {manifest['candidates']} candidates; "
        f"dropped: {dropped or 'none'}"
    )
