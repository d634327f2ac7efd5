"""`tpo eval`: base and trained policy -> scores, on videos whose truth is known."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from benchmarks.counterfactual import VIEWS, can_be_asked, positions_seen
from benchmarks.runner import Record, read_records, summarise
from benchmarks.tasks.item import Item
from benchmarks.tasks.synthetic import questions
from data_pipelines.artefacts import file_sha256, read_manifest, write_manifest
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import train_frames
from data_pipelines.synthetic import read_truth
from tpo_jax.api import LoadedModel, load
from tpo_jax.cli import eval_needle, eval_options
from tpo_jax.cli.eval_benchmarks import is_asked, run_benchmarks
from tpo_jax.cli.experiment import (
    BASE,
    TAKEN,
    WHOLE,
    ask_arms,
    ask_items,
    is_experiment,
    open_exam,
)
from tpo_jax.cli.experiment_page import make_experiment_report
from tpo_jax.cli.export import load_policy
from tpo_jax.cli.frames import store_videos
from tpo_jax.cli.hosts import all_hosts, building_together
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings
from tpo_jax.parallel.distributed import first_host_first, is_first_host


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "--counterfactual",
        choices=list(VIEWS),
        help="ask the same again with what is asked about taken away, and tell what is left: "
        + "; ".join(f"{name}: {told}" for name, told in VIEWS.items())
        + " (with --tasks: give another --out, then --compare both)",
    )
    eval_options.add_arguments(parser)
    eval_needle.add_arguments(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Without --tasks, asks the checkpoint and the policy trained from it the same questions\n"
        "about config.eval.videos and writes RUN_DIR/eval. No other verb reads config.eval.truth.\n"
        "After `tpo demo` it asks the models of all arms, and --counterfactual asks them again.\n"
        + eval_options.HELP
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    with all_hosts(settings):
        _run(args, settings)


def _run(args: argparse.Namespace, settings: RunConfig) -> None:
    if is_asked(args):
        if args.counterfactual:
            args.set.append(f"taken={args.counterfactual}")
        run_benchmarks(args, settings)
        return
    if is_experiment(settings):
        ask_experiment(settings, args.counterfactual)
        return
    whole = evaluate(settings)
    if args.counterfactual:
        audit(settings, whole, args.counterfactual)


def ask_experiment(settings: RunConfig, view: str | None) -> None:
    """Ask the models of all arms about held-out videos, through a view too; write the report."""
    exam = open_exam(settings, "heldout")
    arms = [BASE, *settings.arms.names]
    for one in (WHOLE, TAKEN[view]) if view else (WHOLE,):
        ask_arms(settings, exam, one, arms)
    if is_first_host():
        make_experiment_report(settings, exam)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Both models, the questions, the videos they are about, and what answers are made from."""

    models: dict[str, LoadedModel]
    items: list[Item]
    store: FrameStore
    made_from: dict[str, Any]


def open_evaluation(settings: RunConfig) -> Evaluation:
    """Everything that is evaluated with.

    Raises:
      InputError: the run is not trained, or there is no truth.
    """
    base, policy = load(settings.checkpoint), load_policy(settings)
    with first_host_first("frames of eval"):
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
    models = {"base": base, "tpo": policy}
    return Evaluation(models=models, items=items, store=store, made_from=made_from)


def evaluate(settings: RunConfig) -> Evaluation:
    """Score both models; a video is a unit of work, done once. Returns what was evaluated."""
    whole = open_evaluation(settings)
    out = settings.folder("eval")
    if is_done(out, "eval", whole.made_from):
        return whole
    with building_together(out, whole.made_from) as partial:
        records = {
            label: _ask(settings, label, model, whole, partial / f"{label}.jsonl")
            for label, model in whole.models.items()
        }
        if is_first_host():
            scores = summarise(whole.items, records)
            write_manifest(partial, "eval", whole.made_from, scores=scores)
    return whole


def audit(settings: RunConfig, whole: Evaluation, view: str) -> None:
    """Ask both models again through a view, into RUN_DIR/eval_VIEW; tell what is left.

    Only items that need what the view takes away are asked (`benchmarks/counterfactual.py`).
    """
    items = [item for item in whole.items if can_be_asked(item, view)]
    if not items:
        raise InputError(f"--counterfactual={view}: no question needs what that takes away")
    left = replace(whole, items=items, made_from=whole.made_from | {"view": view})
    out = settings.folder(f"eval_{view}")
    if not is_done(out, "eval", left.made_from):
        ids = {item.id for item in items}
        with building_together(out, left.made_from) as partial:
            scores = {}
            for label, model in left.models.items():
                without = _ask(settings, label, model, left, partial / f"{label}.jsonl", view)
                known = read_records(settings.folder("eval") / f"{label}.jsonl")
                by_id = {line.item: line for line in known if line.item in ids}
                if lacking := sorted(ids - by_id.keys()):
                    raise InputError(
                        f"{settings.folder('eval') / label}.jsonl: has no answer to "
                        f"{lacking[0]!r}; delete its folder and evaluate again"
                    )
                with_frames = [by_id[item.id] for item in items]
                scores[label] = summarise(items, {view: without, "whole": with_frames})
            if is_first_host():
                write_manifest(partial, "eval", left.made_from, scores=scores)
    _tell_audit(read_manifest(out, "eval")["scores"], view)


def _tell_audit(scores: dict[str, Any], view: str) -> None:
    table = Table(title=f"Answers {VIEWS[view]}")
    for name in ("model", "questions", "whole %", f"{view} %", "chance %", "whole less " + view):
        table.add_column(name, justify="left" if name in ("model", "questions") else "right")
    for label, told in scores.items():
        for group, gain in told["difference"]["whole"].items():
            if not told["groups"][group]:
                continue
            values = [told["accuracy"][which][group]["value"] for which in ("whole", view)]
            points = (f"{100 * gain[name]:+.1f}" for name in ("value", "low", "high"))
            value, low, high = points
            table.add_row(
                label,
                group,
                *(f"{100 * value:.1f}" for value in values),
                f"{100 * told['chance'][group]:.1f}" if group in told["chance"] else "",
                f"{value} [{low}, {high}]",
            )
    Console(width=100).print(table)


def _ask(
    settings: RunConfig,
    label: str,
    model: LoadedModel,
    what: Evaluation,
    record: Path,
    view: str | None = None,
) -> list[Record]:
    store = what.store

    def positions_of(item: Item, times_F: np.ndarray) -> np.ndarray:
        positions = train_frames(len(times_F), settings.eval.frames)
        if view is not None:
            positions = positions_seen(item, view, positions, times_F, settings.eval.seed)
        return positions

    title = f"eval {label}" + (f", {view}" if view else "")
    return ask_items(settings, title, model, store, what.items, positions_of, record)
