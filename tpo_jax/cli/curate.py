"""`tpo curate`: FrameStore -> pairs, out of the model or of a file of answers."""

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.answers import keep_answers, read_answers
from data_pipelines.artefacts import file_sha256, fingerprint, read_manifest
from data_pipelines.curation.candidates import AnyQuestions, TextQuestions
from data_pipelines.curation.config import ROLES
from data_pipelines.curation.given import read_given
from data_pipelines.curation.judge import Judge, NoJudge, RuleJudge
from data_pipelines.curation.pipeline import Curator, TextJudge, curate
from data_pipelines.curation.questions import RuleQuestions, TimeQuestions
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.text_models.endpoint import Endpoint
from data_pipelines.text_models.text_model import PolicyText, TextModel
from tpo_jax.api import checkpoint_images, load
from tpo_jax.cli.answering import make_answerer
from tpo_jax.cli.frames import open_frames
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings


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
        "with the reason for each, captions.jsonl, and a manifest with the counts. What was "
        "captioned, asked, answered and judged is kept in RUN_DIR/curation: killed and run again, "
        "it goes on where it was, and with another judge nothing else is done again."
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
    answerer = make_answerer(settings, model, store)
    players = Players(settings, store, PolicyText(answerer, identity))
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
            curate(curator, out, made_from, lambda done, total, detail: update(done, detail))
    for line in players.told():
        print(line)
    print(summary(out))


class Players:
    """Who captions, asks and judges, as the config says."""

    def __init__(self, settings: RunConfig, store: FrameStore, policy: PolicyText):
        """Args: the config, the frames that are asked about, and the model as writer of texts."""
        self._config = settings.curate
        self._store = store
        self._policy = policy
        self._work = settings.folder("curation")
        self._endpoints: dict[str, Endpoint] = {}

    def text_model(self, role: str) -> TextModel:
        """Who plays a role: the policy or an endpoint; one object an endpoint, for its cache."""
        assert role in ROLES
        config = self._config.endpoint_of(role)
        if config is None:
            return self._policy
        asked = fingerprint(as_json(config))
        if asked not in self._endpoints:
            cache = self._work / f"endpoint-{asked}.jsonl"
            self._endpoints[asked] = Endpoint(config, cache, self._store)
        return self._endpoints[asked]

    def maker(self) -> AnyQuestions:
        """Who asks. InputError for a file that is none."""
        asker = self._config.questions
        if asker == "rules":
            return RuleQuestions()
        if asker == "time":
            return TimeQuestions()
        if asker == "file":
            if not self._config.questions_file:
                raise InputError(
                    "curate.questions is 'file' but curate.questions_file is empty; name the file "
                    "of questions, or set curate.questions to 'policy' or an endpoint"
                )
            return read_given(Path(self._config.questions_file), self._store)
        return TextQuestions(model=self.text_model("questions"))

    def judge(self) -> Judge | TextJudge:
        """Who judges."""
        if self._config.judge == "rules":
            return RuleJudge()
        if self._config.judge == "none":
            return NoJudge()
        return TextJudge(model=self.text_model("judge"))

    def told(self) -> list[str]:
        """A line on what each endpoint was asked in this run, and what that cost."""
        lines = []
        for endpoint in self._endpoints.values():
            usage = endpoint.usage
            lines.append(
                f"{endpoint.name}: {usage.requests} requests ({usage.failures} failed), "
                f"{usage.from_cache} answers from the cache, {usage.tokens_in} tokens in, "
                f"{usage.tokens_out} out, cost {endpoint.cost:.4f}"
            )
        return lines


def summary(out: Path) -> str:
    """One line on the pairs of a folder."""
    manifest: dict[str, Any] = read_manifest(out, "pairs")
    mix = ", ".join(f"{count} {kind}" for kind, count in sorted(manifest["mix"].items()))
    dropped = ", ".join(f"{count} {name}" for name, count in sorted(manifest["dropped"].items()))
    return (
        f"{out}: {manifest['pairs']} pairs ({mix}) of {manifest['candidates']} candidates; "
        f"dropped: {dropped or 'none'}"
    )
