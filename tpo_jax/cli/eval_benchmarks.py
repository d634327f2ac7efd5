"""What `tpo eval` does with published benchmarks: score a checkpoint or a log, compare results."""

import argparse
from pathlib import Path

import jax

from data_pipelines.errors import InputError
from tpo_jax.cli.eval_compare import compare
from tpo_jax.cli.eval_logs import score_log
from tpo_jax.cli.eval_needle import run_needle
from tpo_jax.cli.eval_tasks import run_tasks
from tpo_jax.cli.settings import RunConfig
from tpo_jax.parallel.distributed import is_first_host


def is_asked(args: argparse.Namespace) -> bool:
    """Whether the options are about published benchmarks and not about a run's own videos.

    Raises:
      InputError: some are that need others.
    """
    if args.tasks or args.compare or args.from_logs or args.needle:
        return True
    given = {"checkpoint": args.checkpoint, "data": args.data, "videos": args.videos}
    if named := [name for name, value in given.items() if value]:
        raise InputError(f"--{named[0]}: for published benchmarks; give --tasks=NAMES too")
    return False


def run_benchmarks(args: argparse.Namespace, settings: RunConfig) -> None:
    """Score what is to be scored, then compare: two results, or what was scored with one before it.

    Raises:
      InputError: options that do not go together.
    """
    others = [Path(folder) for folder in args.compare or ()]
    scoring = bool(args.from_logs or args.tasks or args.needle)
    if args.needle and (args.from_logs or args.tasks):
        raise InputError(f"--needle={args.needle}: asked for itself; leave out --tasks and logs")
    if args.html and not others:
        raise InputError(f"--html={args.html}: only used with --compare; give that too")
    if others and len(others) != 2 - scoring:
        wanted = "one result to compare with" if scoring else "two results"
        raise InputError(f"--compare: {len(others)} given; give {wanted}")
    if args.needle and jax.process_count() > 1:
        raise InputError(f"--needle={args.needle}: runs in one process, not on several hosts")
    if not args.tasks and not is_first_host():
        return
    if args.from_logs:
        others.append(score_log(args))
    elif args.needle:
        others.append(run_needle(args, settings))
    elif args.tasks:
        others.append(run_tasks(args, settings))
    if len(others) == 2 and is_first_host():
        compare(others[0], others[1], args)
