"""What `tpo eval` does with published benchmarks: score a checkpoint or a log, compare results."""

import argparse

from tpo_jax.cli.eval_tasks import run_tasks
from tpo_jax.cli.settings import RunConfig


def run_benchmarks(args: argparse.Namespace, settings: RunConfig) -> None:
    """Run what the options say: a score, a log's score, a comparison.

    Raises:
      InputError: options that do not go together.
    """
    run_tasks(args, settings)
