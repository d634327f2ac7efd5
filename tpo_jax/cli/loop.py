"""`tpo loop`: rounds of self-training; the policy of one round curates the next."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace

from ml_collections import ConfigDict

from data_pipelines.artefacts import read_manifest
from tpo_jax.cli import curate, export, reference, train
from tpo_jax.cli.frames import make_frames
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.errors import InputError
from tpo_jax.training.run_log import read_metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "--rounds", type=int, required=True, metavar="N", help="how many, 1 or more"
    )
    parser.epilog = (
        "Each round curates, computes its own reference, trains and exports in RUN_DIR/round_0, "
        "round_1 and so on, all over the frames of RUN_DIR/frames. Round 0 begins with "
        "config.checkpoint, every other with the export of the one before, which both makes its "
        "pairs and is its reference. A killed loop goes on where it was; a greater N adds rounds."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    if args.rounds < 1:
        raise InputError(f"--rounds={args.rounds}: must be 1 or more")
    if settings.mixture:
        raise InputError("config.mixture names pairs to train on; `tpo loop` makes its own")
    make_frames(settings)
    for number, each in enumerate(round_settings(settings, args.rounds)):
        print(f"round {number} of {args.rounds}, beginning with {each.checkpoint}")
        curate.make_pairs(each)
        if each.loss.needs_reference:
            reference.make_reference(each)
        train.train_policy(each)
        export.export_policy(each)
    for number, each in enumerate(round_settings(settings, args.rounds)):
        print(told_round(number, each))


def round_settings(settings: RunConfig, rounds: int) -> Iterator[RunConfig]:
    """The settings of each round."""
    checkpoint = settings.checkpoint
    for number in range(rounds):
        each = replace(
            settings.below(f"round_{number}"),
            checkpoint=checkpoint,
            # Other questions in every round; the same ones again if a round is repeated.
            curate=replace(settings.curate, round=number, seed=settings.curate.seed + number),
        )
        yield each
        checkpoint = str(each.folder("export"))


def told_round(number: int, settings: RunConfig) -> str:
    """A line on a finished round."""
    pairs = read_manifest(settings.folder("pairs"), "pairs")
    last = read_metrics(settings.folder("train"))[-1]
    told = [
        f"{name} {last[name]:.3f}"
        for name in ("loss", "reward_accuracy", "reward_margin")
        if not math.isnan(last.get(name, math.nan))
    ]
    return (
        f"round {number}: {pairs['pairs']} pairs of {pairs['candidates']} candidates; last step: "
        f"{', '.join(told)}; {settings.folder('export')}"
    )
