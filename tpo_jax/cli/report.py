"""`tpo report`: scores, curves and pairs -> summary.json and one page to look at."""

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from data_pipelines.artefacts import read_manifest, write_json, write_text
from data_pipelines.frames import FrameStore
from data_pipelines.pages import Page, Panel
from data_pipelines.pair_pages import show_pair
from data_pipelines.pairs import Pair, read_pairs
from tpo_jax.cli.experiment import is_experiment, open_exam
from tpo_jax.cli.experiment_page import make_experiment_report
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.training.run_log import read_metrics
from tpo_jax.training.step_clock import without_timing

PAIRS_SHOWN = 6
GROUPS = ("all", "localized", "comprehensive")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Writes RUN_DIR/summary.json and RUN_DIR/report.html, a single file that opens offline, "
        "from what the other verbs left in RUN_DIR."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    if is_experiment(settings):
        make_experiment_report(settings, open_exam(settings, "heldout"))
    else:
        make_report(settings)


def make_report(settings: RunConfig) -> Path:
    """Write both files, print the table; returns the page's path."""
    summary = summarise_run(settings)
    root = Path(settings.run_dir)
    write_json(root / "summary.json", summary)
    page = root / "report.html"
    write_text(page, _page(settings, summary).render())
    _print_table(summary["scores"], _trained_name(settings))
    print(f"report: {page}\nnumbers: {root / 'summary.json'}")
    return page


def summarise_run(settings: RunConfig) -> dict[str, Any]:
    """The run's numbers; the same run gives the same numbers, whenever and however often."""
    pairs = read_manifest(settings.folder("pairs"), "pairs")
    metrics = [without_timing(line) for line in read_metrics(settings.folder("train"))]
    kinds = ["frames", "pairs", "reference", "train", "eval", "export"]
    if not settings.loss.needs_reference:
        kinds.remove("reference")
    return {
        "scores": read_manifest(settings.folder("eval"), "eval")["scores"],
        "pairs": {key: pairs[key] for key in ("pairs", "mix", "candidates", "dropped")},
        "training": {"steps": len(metrics), "first": metrics[0], "last": metrics[-1]},
        "fingerprints": {
            kind: read_manifest(settings.folder(kind), kind)["fingerprint"] for kind in kinds
        },
    }


def _trained_name(settings: RunConfig) -> str:
    """What the trained model is called: SFT where nothing but answers was learned."""
    return "TPO" if settings.loss.needs_reference else "SFT"


def headline(scores: dict[str, Any], trained: str) -> str:
    """What the table says about the trained model, in words that its interval supports."""
    gain = scores["difference"]["tpo"]["all"]
    points = f"{_points(gain)} points"
    if gain["low"] > 0:
        return f"{trained} answers better than the base model: {points}."
    if gain["high"] < 0:
        return f"{trained} answers worse than the base model: {points}."
    return (
        f"{trained} and the base model cannot be told apart: {points}, an interval that holds zero."
    )


def _points(gain: dict[str, float]) -> str:
    value, low, high = (f"{100 * gain[part]:+.1f}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _print_table(scores: dict[str, Any], trained: str) -> None:
    table = Table(
        title=f"accuracy on {scores['items']} questions, {scores['videos']} unseen videos"
    )
    for column in _columns(trained):
        table.add_column(column, justify="left" if column == "questions" else "right")
    for row in _rows(scores):
        table.add_row(*row)
    Console().print(table)
    print(headline(scores, trained))


def _columns(trained: str) -> list[str]:
    return ["questions", "count", "chance", "base", trained, "difference [95%]"]


def _rows(scores: dict[str, Any]) -> list[list[str]]:
    rows = []
    for group, count in scores["groups"].items():
        chance = scores["chance"].get(group)
        gain = scores["difference"]["tpo"].get(group)
        rows.append(
            [
                group if group in GROUPS else f"  {group}",
                str(count),
                "" if chance is None else f"{chance:.1%}",
                f"{scores['accuracy']['base'][group]['value']:.1%}",
                f"{scores['accuracy']['tpo'][group]['value']:.1%}",
                "" if gain is None else _points(gain),
            ]
        )
    return rows


def _page(settings: RunConfig, summary: dict[str, Any]) -> Page:
    scores = summary["scores"]
    page = Page(f"tpo_jax: {settings.run_dir}")
    trained = _trained_name(settings)
    pairs = read_pairs(settings.folder("pairs") / "pairs.jsonl")
    page.text(headline(scores, trained))
    page.heading("Accuracy on unseen long videos")
    page.text(
        f"{scores['items']} questions about {scores['videos']} videos, each seen as "
        f"{settings.eval.frames} frames uniform over its length. Bars show the 95% interval over "
        "videos; the dotted line is what guessing gives. The base model learned from short clips; "
        + _what_was_done(settings, pairs)
    )
    groups = list(scores["groups"])
    page.bars(
        groups,
        {
            label: [
                tuple(scores["accuracy"][key][group][part] for part in ("value", "low", "high"))
                for group in groups
            ]
            for label, key in (("base", "base"), (trained, "tpo"))
        },
        [scores["chance"].get(group) for group in groups],
    )
    page.table(_columns(trained), _rows(scores))
    page.heading("Training")
    steps_of = f"{summary['training']['steps']} steps of {settings.train.batch_pairs}"
    rate = f"learning rate {settings.train.learning_rate:g}"
    shown = f"the same {settings.train_frames} frames of the whole video"
    if settings.loss.needs_reference:
        page.text(
            f"{steps_of} pairs, {rate}, beta {settings.loss.beta:g}, SFT weight "
            f"{settings.loss.sft_weight:g}. Every pair shows {shown} for both answers."
        )
    else:
        page.text(f"{steps_of} answers, {rate}. Every question about a video shows {shown}.")
    metrics = read_metrics(settings.folder("train"))
    steps = [int(one["step"]) for one in metrics]

    def series(*names: str) -> dict[str, tuple[list[int], list[float]]]:
        return {
            name: (steps, [one[name] for one in metrics]) for name in names if name in metrics[0]
        }

    page.curves(
        [
            Panel(title="Loss", y_label="nats", series=series("loss", "dpo_loss", "sft_loss")),
            Panel(title="Reward margin", y_label="reward", series=series("reward_margin")),
            Panel(title="Reward accuracy", y_label="share", series=series("reward_accuracy")),
            Panel(
                title="Log-probs",
                y_label="nats an answer",
                series=series("logprob_chosen", "logprob_rejected"),
            ),
        ]
    )
    page.heading("Pairs")
    counts = summary["pairs"]
    mix = ", ".join(f"{count} {kind}" for kind, count in sorted(counts["mix"].items()))
    page.text(f"{counts['pairs']} pairs ({mix}) out of {counts['candidates']} candidates.")
    dropped = sorted(counts["dropped"].items(), key=lambda item: -item[1])
    page.table(["dropped by", "candidates"], [[name, count] for name, count in dropped])
    store = FrameStore.open(settings.folder("frames"))
    for pair in _sample(pairs):
        show_pair(page, pair, store, settings.train_frames)
    return page


def _what_was_done(settings: RunConfig, pairs: list[Pair]) -> str:
    if settings.loss.needs_reference:
        return "TPO trained it on pairs that it made itself, without labels."
    if all(pair.rejected is not None for pair in pairs):
        return "SFT trained it on chosen answers that it made itself, without labels."
    return "SFT trained it on answers that it was given."


def _sample(pairs: list[Pair]) -> list[Pair]:
    """The first few of each granularity."""
    half = PAIRS_SHOWN // 2
    kinds = sorted({pair.granularity for pair in pairs}, reverse=True)
    return [p for kind in kinds for p in [q for q in pairs if q.granularity == kind][:half]]
