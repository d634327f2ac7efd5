"""`tpo eval --compare`: two results of the same items, question by question."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.compare import agreement, compare_results, headline, shared_items
from benchmarks.compare_page import COLUMNS, FRAMES_SHOWN, FramesOf, compare_page, comparison_rows
from benchmarks.task_result import TaskResult, read_results
from data_pipelines.artefacts import MANIFEST_NAME, write_json, write_text
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.sampling import spread
from tpo_jax.cli.eval_options import by_task
from tpo_jax.cli.progress import warn

SETTINGS_SHOWN = 12


def compare(first: Path, second: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print how the second differs from the first, of every task that both have; write the page.

    Raises:
      InputError: they share no task, or a task's items differ.
    """
    ours, theirs = read_results(first), read_results(second)
    tasks = [name for name in ours if name in theirs]
    if not tasks:
        raise InputError(
            f"{first} has {', '.join(ours)} and {second} has {', '.join(theirs)}: no task is in "
            "both; evaluate both on one"
        )
    if left := sorted((ours.keys() | theirs.keys()) - set(tasks)):
        warn(f"only one of them has {', '.join(left)}")
    if args.leave_out_missing:
        for name in tasks:
            ours[name], theirs[name] = shared_items(ours[name], theirs[name])
    compared = [(compare_results(ours[n], theirs[n]), ours[n], theirs[n]) for n in tasks]
    for told, _, _ in compared:
        _print(told)
    stores = by_task(args.frames_store, "frames-store", tasks)
    frames = {n: _frames_of(ours[n], theirs[n], stores.get(n)) for n in tasks}
    if args.html:
        page = compare_page(
            f"{second.name} against {first.name}",
            compared,
            {name: one for name, one in frames.items() if one is not None},
        )
        write_text(args.html, page.render())
        numbers = Path(args.html).with_suffix(".json")
        write_json(numbers, [told for told, _, _ in compared])
        print(f"page: {args.html}\nnumbers: {numbers}")
    return [told for told, _, _ in compared]


def _print(told: Mapping[str, Any]) -> None:
    first, second = told["names"]
    table = Table(title=f"{told['task']}: first {first}, second {second}")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "group" else "right")
    for row in comparison_rows(told):
        table.add_row(*map(str, row))
    Console(width=120).print(table)
    print(headline(told))
    print(agreement(told))
    for line in told["settings"][:SETTINGS_SHOWN]:
        print(f"  measured differently: {line}")
    if len(told["settings"]) > SETTINGS_SHOWN:
        print(f"  measured differently: and {len(told['settings']) - SETTINGS_SHOWN} more")


def _frames_of(first: TaskResult, second: TaskResult, given: str | None) -> FramesOf | None:
    """Frames of a line, from the store that the results were made with, if that is still there."""
    for result in (first, second):
        place = given or result.manifest["places"]["frames"]
        if place and (Path(place) / MANIFEST_NAME).exists():
            return _reader(FrameStore.open(place), result)
    return None


def _reader(store: FrameStore, result: TaskResult) -> FramesOf:
    lines = {line["item"]: line for line in result.items}

    def frames_of(line: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        shown = lines[line["item"]]
        positions_F = spread(np.unique(shown["positions"]), FRAMES_SHOWN)
        times_F = store.info(shown["video"]).times_F[positions_F]
        return store.frames(shown["video"], positions_F), times_F

    return frames_of
