"""One picture of a demo's run: a pair as it was made, and what training on such pairs did.

python -m benchmarks.picture runs/demo docs/results/demo.png     # after `tpo demo`
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_pipelines.frames import FrameStore
from data_pipelines.pairs import Pair, read_pairs, train_frames

SHOWN = 16  # frames of the video
ARMS = {"base": "base", "sft": "SFT", "random": "random\nnegatives", "tpo": "TPO"}
GROUPS = ("all", "localized", "comprehensive")
CHOSEN, REJECTED, PLAIN = "#2a7f3f", "#b03030", "#5c6f8a"


def draw_run(run: Path, out: Path) -> None:
    """Draw the first localized pair of a finished run, and accuracies with 95% intervals."""
    summary = json.loads((run / "summary.json").read_text())["whole"]
    pair = next(one for one in read_pairs(run / "pairs" / "pairs.jsonl") if one.segment)
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    parts: Any = figure.subfigures(2, height_ratios=(1, 2.4))
    above, below = parts
    _draw_pair(above.subplots(1, SHOWN), pair, FrameStore.open(run / "frames"))
    above.suptitle(
        f"{pair.question}\nseeing the outlined frames: {pair.chosen} (chosen)      "
        f"seeing others only: {pair.rejected} (rejected)",
        fontsize=10,
    )
    for axes, group in zip(below.subplots(1, len(GROUPS), sharey=True), GROUPS, strict=True):
        _draw_accuracy(axes, summary, group)
    below.supylabel("% right", fontsize=9)
    below.suptitle(
        f"{summary['items']} questions about {summary['videos']} held-out videos; "
        "95% intervals; dashed: chance",
        fontsize=10,
    )
    figure.savefig(out, dpi=110, metadata={"Software": None})


def _draw_pair(row: Sequence[Axes], pair: Pair, store: FrameStore) -> None:
    shown = train_frames(len(store.info(pair.video_id).times_F), len(row))
    first, last = min(pair.chosen_frames), max(pair.chosen_frames)
    pictures = store.frames(pair.video_id, shown)
    for axes, position, picture in zip(row, shown, pictures, strict=True):
        axes.imshow(picture)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(first <= position <= last)
            spine.set(color=CHOSEN, linewidth=3)


def _draw_accuracy(axes: Axes, summary: dict, group: str) -> None:
    told = [summary["accuracy"][arm][group] for arm in ARMS]
    values = np.array([one["value"] for one in told])
    errors = np.abs(np.array([[one["low"], one["high"]] for one in told]).T - values)
    bars = axes.bar(
        list(ARMS.values()),
        100 * values,
        yerr=100 * errors,
        color=[PLAIN, PLAIN, REJECTED, CHOSEN],
        capsize=4,
    )
    for bar, value in zip(bars, values, strict=True):
        middle = bar.get_x() + bar.get_width() / 2
        axes.text(middle, 2, f"{100 * value:.1f}", fontsize=8, ha="center", color="white")
    axes.axhline(100 * summary["chance"][group], color="black", linestyle="--", linewidth=0.8)
    axes.set_title(f"{group} ({summary['groups'][group]})", fontsize=9)
    axes.tick_params(labelsize=8)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of a finished `tpo demo`")
    parser.add_argument("out", type=Path, help="a .png or .svg")
    given = parser.parse_args()
    draw_run(given.run, given.out)


if __name__ == "__main__":
    main()
