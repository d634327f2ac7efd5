"""`tpo curate`: FrameStore -> pairs, out of the model or of a file of answers."""

import argparse
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from data_pipelines.answers import keep_answers, read_answers
from data_pipelines.artefacts import file_sha256, fingerprint, read_manifest, write_text
from data_pipelines.curation.pipeline import Curator, curate, curate_share
from data_pipelines.curation.report import curation_page, read_curation
from data_pipelines.frames import FrameStore
from data_pipelines.text_models.text_model import PolicyText
from tpo_jax.api import checkpoint_images, load
from tpo_jax.cli.answering import answering_mesh, make_answerer
from tpo_jax.cli.curation_cost import curation_cost, told_cost
from tpo_jax.cli.frames import open_frames
from tpo_jax.cli.hosts import all_hosts
from tpo_jax.cli.planned_model import find_model
from tpo_jax.cli.players import Players
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings
from tpo_jax.parallel.distributed import is_first_host, wait_for_all
from tpo_jax.planning.hardware import parse_slice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "--answers",
        metavar="FILE",
        help="make no pairs but keep the questions and answers of this file, JSON lines with "
        '"video" (its name in the frame store), "question" and "answer"; for SFT alone '
        "(config.loss.dpo_weight=0)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say how many calls, visual tokens, chip-hours and how much money it takes at most",
    )
    parser.add_argument(
        "--topology",
        metavar="SLICE",
        default="v5e:1x1",
        help="the chips that --dry-run counts hours for, named as for `tpo plan` "
        "(default: %(default)s)",
    )
    parser.epilog = (
        "Reads RUN_DIR/frames and the checkpoint, writes RUN_DIR/pairs: pairs.jsonl, dropped.jsonl "
        "with the reason for each, captions.jsonl, and a manifest with the counts. What was "
        "captioned, asked, answered and judged is kept in RUN_DIR/curation: killed and run again, "
        "it goes on where it was, and with another judge nothing else is done again. "
        "RUN_DIR/curation.html shows what came of it."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    if args.dry_run:
        tell_cost(settings, args.topology)
    elif args.answers is None:
        with all_hosts(settings):
            make_pairs(settings)
    else:
        take_answers(settings, Path(args.answers))


def tell_cost(settings: RunConfig, topology: str) -> None:
    """What curation takes at most. Neither weights nor videos are read.

    Raises:
      InputError: there is no frame store for the config, or no such slice or model.
    """
    store = FrameStore.open(settings.folder("frames"))
    model = find_model(None, settings.checkpoint)
    cost = curation_cost(
        settings.curate,
        store,
        model.config,
        answer_tokens=settings.sampling.max_new_tokens,
        chip=parse_slice(topology).chip,
    )
    print(model.said)
    for line in told_cost(cost, topology):
        print(line)


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
    mesh = answering_mesh(settings)
    model = load(settings.checkpoint, mesh=mesh)
    store = open_frames(settings, model.images, "curate")
    config = settings.curate
    answered_with = {
        "frames": store.fingerprint,
        "model": model.fingerprint,
        "prompts": as_json(settings.prompts),
        "sampling": as_json(settings.sampling),
        "compute_dtype": settings.compute_dtype,
        "seed": settings.seed,
    }
    out = settings.folder("pairs")
    identity = fingerprint(answered_with)
    answerer = make_answerer(settings, model, store, mesh, keep=config.videos_kept)
    players = Players(settings, store, PolicyText(answerer, identity), jax.process_index())
    maker, judge = players.maker(), players.judge()
    made_from = answered_with | {
        "curate": config.made_from(),
        "train_frames": settings.train_frames,
        "questions": maker.name,
        "judge": judge.name,
    }
    if config.questions == "file":
        made_from["questions_file"] = file_sha256(Path(config.questions_file))[:16]
    with stage_progress("curate", len(store.videos)) as update:
        if is_done(out, "pairs", made_from):
            update(len(store.videos), "done before")
        else:
            curator = Curator(
                config=config,
                store=store,
                model=answerer,
                maker=maker,
                judge=judge,
                sampling=as_json(settings.sampling),
                captioner=players.text_model("captioner"),
                identity=identity,
                train_frames=settings.train_frames,
            )

            def progress(done: int, total: int, detail: str) -> None:
                update(done, detail)

            hosts = jax.process_count()
            try:
                if hosts > 1:
                    curate_share(curator, out, jax.process_index(), hosts, progress)
                    wait_for_all("all videos are curated")
                if is_first_host():
                    curate(curator, out, made_from, progress)
            finally:  # what was asked is paid for, whatever stopped the rest
                for line in players.told():
                    print(line)
    wait_for_all(f"{out} has its name")
    if is_first_host():
        write_page(out, settings, store)


def write_page(out: Path, settings: RunConfig, store: FrameStore) -> None:
    """RUN_DIR/curation.html, about the pairs of a folder."""
    print(summary(out))
    page = curation_page(f"Curation: {out}", read_curation(out), store)
    path = Path(settings.run_dir) / "curation.html"
    write_text(path, page.render())
    print(f"page: {path}")


def summary(out: Path) -> str:
    """One line on the pairs of a folder."""
    manifest: dict[str, Any] = read_manifest(out, "pairs")
    mix = ", ".join(f"{count} {kind}" for kind, count in sorted(manifest["mix"].items()))
    dropped = ", ".join(f"{count} {name}" for name, count in sorted(manifest["dropped"].items()))
    return (
        f"{out}: {manifest['pairs']} pairs ({mix}) of {manifest['candidates']} candidates; "
        f"dropped: {dropped or 'none'}"
    )
