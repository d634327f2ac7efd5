"""`tpo curate`: FrameStore -> pairs, out of the model or of a file of answers."""

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.answers import keep_answers, read_answers
from data_pipelines.artefacts import file_sha256, read_manifest
from data_pipelines.curation.judge import Judge, NoJudge, RuleJudge
from data_pipelines.curation.pipeline import CurateConfig, Curator, curate
from data_pipelines.curation.questions import QuestionMaker, RuleQuestions, TimeQuestions
from data_pipelines.curation.written import WrittenJudge, WrittenQuestions
from data_pipelines.text_models.endpoint import Endpoint
from tpo_jax.api import checkpoint_images, load
from tpo_jax.cli.answering import make_answerer
from tpo_jax.cli.frames import open_frames
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings

CACHE = "endpoint_cache"  # beside the artefacts: what an endpoint has answered


def question_maker(settings: RunConfig) -> tuple[QuestionMaker, Judge, Endpoint | None]:
    """Who writes questions and who judges, and the endpoint that both are, if they are one.

    Raises:
      InputError: the config names an endpoint that cannot be asked.
    """
    if settings.curate.questions == "rules":
        return RuleQuestions(), RuleJudge(), None
    if settings.curate.questions == "time":
        return TimeQuestions(), NoJudge(), None
    endpoint = Endpoint(settings.curate.endpoint, settings.folder(CACHE))
    return WrittenQuestions(endpoint), WrittenJudge(endpoint), endpoint


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
    maker, judge, endpoint = question_maker(settings)
    made_from = {
        "frames": store.fingerprint,
        "model": model.fingerprint,
        "prompts": as_json(settings.prompts),
        "sampling": as_json(settings.sampling),
        "compute_dtype": settings.compute_dtype,
        "curate": what_matters(settings.curate),
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
    if endpoint is not None:
        print(
            f"{endpoint.name}: {endpoint.sent:,} tokens sent, {endpoint.received:,} received, "
            f"{endpoint.cost:.2f} by the prices of curate.endpoint; answers kept are free"
        )
    print(summary(out))


def what_matters(config: CurateConfig) -> dict[str, Any]:
    """What pairs depend on of the settings: not how, or at what price, an endpoint is asked."""
    made_from = as_json(config)
    endpoint = made_from.pop("endpoint")
    if config.questions == "written":
        made_from["endpoint"] = {key: endpoint[key] for key in ("base_url", "model", "max_tokens")}
    return made_from


def summary(out: Path) -> str:
    """One line on the pairs of a folder."""
    manifest: dict[str, Any] = read_manifest(out, "pairs")
    mix = ", ".join(f"{count} {kind}" for kind, count in sorted(manifest["mix"].items()))
    dropped = ", ".join(f"{count} {name}" for name, count in sorted(manifest["dropped"].items()))
    return (
        f"{out}: {manifest['pairs']} pairs ({mix}) of {manifest['candidates']} candidates; "
        f"dropped: {dropped or 'none'}"
    )
