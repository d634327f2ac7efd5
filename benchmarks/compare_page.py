"""A page that shows two results beside each other, with the questions on which they differ."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.compare import WHOLE, agreement, headline, points_text
from benchmarks.task_result import TaskResult
from data_pipelines.pages import Page

QUESTIONS_SHOWN = 20  # of each kind and task
FRAMES_SHOWN = 12
NEEDLE_AXES = ("depth", "frames")
COLUMNS = ("group", "items", "first", "second", "difference [95%]", "error", "p", "won", "lost")
# Frames of a line of the first result: uint8 [F, S, S, 3], and the seconds of each.
FramesOf = Callable[[Mapping[str, Any]], tuple[np.ndarray, np.ndarray]]


def compare_page(
    title: str,
    compared: Sequence[tuple[Mapping[str, Any], TaskResult, TaskResult]],
    frames_of: Mapping[str, FramesOf],
) -> Page:
    """Builds the page.

    Args:
      title: of the page.
      compared: of each task what `compare_results` gave, and both results.
      frames_of: task -> how to get the frames of a line; a task without shows none.
    """
    page = Page(title)
    for told, first, second in compared:
        _add_task(page, told, first, second, frames_of.get(told["task"]))
    return page


def comparison_rows(told: Mapping[str, Any]) -> list[list[Any]]:
    """A row of COLUMNS for all items, then for each group of each axis."""
    return [
        [
            name if axis == WHOLE else f"{axis}: {name}",
            one["items"],
            f"{one['first']:.1%}",
            f"{one['second']:.1%}",
            points_text(one),
            "" if one["standard_error"] is None else f"{100 * one['standard_error']:.1f}",
            f"{one['p']:.3f}",
            one["wins"],
            one["losses"],
        ]
        for axis, groups in told["groups"].items()
        for name, one in groups.items()
    ]


def _add_task(
    page: Page,
    told: Mapping[str, Any],
    first: TaskResult,
    second: TaskResult,
    frames_of: FramesOf | None,
) -> None:
    names = f"first: {told['names'][0]}\nsecond: {told['names'][1]}"
    page.heading(f"{told['task']}: {told['items']} questions about {told['videos']} videos")
    page.text(f"{headline(told)}\n{agreement(told)}\n{names}")
    values = " and ".join(f"{value:.4g}" for value in told["values"])
    page.text(f"{told['metric']}, as the field sums it up: {values}.")
    if told["settings"]:
        page.text("Measured differently in:\n" + "\n".join(told["settings"]))
    page.text(
        "Intervals are of a bootstrap over videos, the error is clustered by video, and p is of a "
        "test that swaps both models' answers video by video."
    )
    page.table(COLUMNS, comparison_rows(told))
    if all(axis in told["groups"] for axis in NEEDLE_AXES):
        _add_needle_maps(page, first, second)
    for axis, groups in told["groups"].items():
        if axis != WHOLE:
            _add_bars(page, axis, groups)
    for kind, numbers in (("won", told["wins"]), ("lost", told["losses"])):
        shown = numbers[:QUESTIONS_SHOWN]
        if numbers:
            more = f", the first {len(shown)}" if len(shown) < len(numbers) else ""
            page.heading(f"{told['task']}: {len(numbers)} questions {kind}{more}")
        for number in shown:
            _add_question(page, first.items[number], second.items[number], frames_of)


def _add_needle_maps(page: Page, *results: TaskResult) -> None:
    """For each result, how often a needle at some depth of so many frames was found."""
    for name, result in zip(("first", "second"), results, strict=True):
        cells: dict[tuple[str, ...], list[bool]] = {}
        for line in result.items:
            cells.setdefault(tuple(line["groups"][axis] for axis in NEEDLE_AXES), []).append(
                line["correct"]
            )
        depths, frames = (sorted({cell[at] for cell in cells}, key=_as_number) for at in (0, 1))
        shares = [
            [
                float(np.mean(cells[depth, count])) if (depth, count) in cells else None
                for count in frames
            ]
            for depth in depths
        ]
        page.heat_map(
            depths, frames, shares, "depth \\ frames", f"{name}: needles found, in percent"
        )


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _add_bars(page: Page, axis: str, groups: Mapping[str, Any]) -> None:
    names = list(groups)
    series: dict[str, list[tuple[float, float, float]]] = {"first": [], "second": []}
    for name in names:
        one = groups[name]
        series["first"].append((one["first"],) * 3)
        low, high = (one["first"] + one[bound] for bound in ("low", "high"))
        within = (min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0))
        series["second"].append((one["second"], *within))
    page.bars(
        names,
        series,
        caption=f"By {axis}. The second's whisker is the interval of its difference to the first.",
    )


def _add_question(
    page: Page,
    line: Mapping[str, Any],
    other: Mapping[str, Any],
    frames_of: FramesOf | None,
) -> None:
    options = "".join(f"\n{option}" for option in line["options"])
    groups = ", ".join(f"{axis} {name}" for axis, name in line["groups"].items())
    text = (
        f"{line['item']} ({line['file']}{'; ' + groups if groups else ''})\n"
        f"{line['question']}{options}\nright: {line['answer']}"
    )
    if frames_of is not None:
        frames, times = frames_of(line)
        page.contact_sheet(frames, [f"{time:.1f} s" for time in times], caption=text)
    else:
        page.text(text)
    said = (f"{one['said']}  [{one['predicted'] or 'nothing found'}]" for one in (line, other))
    page.differences("first", next(said), "second", next(said))
