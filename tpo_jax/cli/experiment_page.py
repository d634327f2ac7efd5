"""The experiment on one page, and in words that its intervals support."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.counterfactual import VIEWS
from data_pipelines.artefacts import write_json, write_text
from data_pipelines.frames import FrameStore
from data_pipelines.pages import Page, Panel
from data_pipelines.pair_pages import show_pair
from data_pipelines.pairs import read_pairs
from tpo_jax.cli.arms import arm_settings
from tpo_jax.cli.experiment import Exam
from tpo_jax.cli.experiment_results import NAMES, find_results
from tpo_jax.cli.settings import RunConfig
from tpo_jax.training.run_log import read_metrics

PAIRS_SHOWN = 6
SHORT = {"base": "base", "sft": "SFT", "random": "random negatives", "tpo": "TPO", "dpo": "DPO"}
GRANULARITIES = ("all", "localized", "comprehensive")


def make_experiment_report(settings: RunConfig, exam: Exam) -> Path:
    """Write summary.json and report.html, print the table; returns the page's path."""
    found = find_results(settings, exam)
    root = Path(settings.run_dir)
    name = "" if exam.split == "heldout" else f"_{exam.split}"
    write_json(root / f"summary{name}.json", found)
    page = root / f"report{name}.html"
    write_text(page, experiment_page(settings, found).render())
    _print_table(found)
    print(f"report: {page}\nnumbers: {root / f'summary{name}.json'}")
    return page


def told(arm: str) -> str:
    """An arm's short name."""
    short, *only = arm.split("_")
    return ", ".join([SHORT[short], *(f"{one} pairs" for one in only)])


def headline(found: dict[str, Any]) -> list[str]:
    """What the differences say, one sentence each."""
    sentences = []
    for pair, by_group in found["whole"]["difference"].items():
        new, old = (told(arm) for arm in pair.split(" - "))
        sentences.append(_verdict(new, old, by_group["all"]))
    return sentences


def _verdict(new: str, old: str, gain: dict[str, float]) -> str:
    points = f"{points_of(gain)} points"
    if gain["low"] > 0:
        return f"{new} answers better than {old}: {points}."
    if gain["high"] < 0:
        return f"{new} answers worse than {old}: {points}."
    return f"{new} and {old} cannot be told apart: {points}, an interval that holds zero."


def points_of(gain: dict[str, float]) -> str:
    """A difference with its interval, in points."""
    value, low, high = (f"{100 * gain[part]:+.1f}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _percent(value: dict[str, float]) -> str:
    return f"{value['value']:.1%}"


def _rows(found: dict[str, Any]) -> list[list[str]]:
    whole = found["whole"]
    return [
        [
            group if group in GRANULARITIES else f"  {group}",
            str(count),
            f"{whole['chance'][group]:.1%}" if group in whole["chance"] else "",
            *(_percent(accuracy[group]) for accuracy in whole["accuracy"].values()),
        ]
        for group, count in whole["groups"].items()
    ]


def _columns(found: dict[str, Any]) -> list[str]:
    return ["questions", "count", "chance", *(told(arm) for arm in found["whole"]["accuracy"])]


def _print_table(found: dict[str, Any]) -> None:
    whole = found["whole"]
    table = Table(
        title=f"accuracy on {whole['items']} questions, {whole['videos']} {found['split']} videos"
    )
    for column in _columns(found):
        table.add_column(column, justify="left" if column == "questions" else "right")
    for row in _rows(found):
        table.add_row(*row)
    Console().print(table)
    for sentence in headline(found):
        print(sentence)


def experiment_page(settings: RunConfig, found: dict[str, Any]) -> Page:
    """The page, of what was found."""
    page = Page(
        "Does the model learn to look? Temporal Preference Optimization on synthetic videos"
    )
    for sentence in headline(found):
        page.text(sentence)
    _introduce(page, settings, found)
    _accuracy(page, found)
    _grounding(page, found)
    _shortcut(page, found)
    _length_and_frames(page, settings, found)
    _needle(page, found)
    _harm(page, found)
    _pairs(page, settings, found)
    _training(page, settings, found)
    return page


def _introduce(page: Page, settings: RunConfig, found: dict[str, Any]) -> None:
    whole = found["whole"]
    page.heading("What was asked")
    page.text(
        f"{whole['items']} questions about {whole['videos']} {found['split']} videos that no model "
        f"was trained on, each seen as {settings.eval.frames} frames uniform over its length. A "
        "video shows six to eight things one after another, each in a colour of its own, between a "
        "ceiling and a floor whose colours recur. Localized questions name one thing and ask for "
        "what is above or below it; at least three other parts of the video hold a wrong answer. "
        "Comprehensive ones ask for order, neighbours, how often, and what is never shown."
    )
    page.text(
        "The base saw short clips, and long ones that were nearly always asked about their end: it "
        "learned that in a long video the end is where to look. All arms learn from the same "
        f"videos, in as many steps, from the same {settings.train_frames} frames. Each is taught "
        f"{settings.arms.seeds} times, from other videos and in another order each time; intervals "
        "(95%) are over videos and seeds."
    )
    page.table(
        ["arm", "what it is", "accuracy of each seed", "words an answer"],
        [
            [
                told(arm),
                NAMES[arm],
                ", ".join(f"{one:.1%}" for one in seeds),
                f"{whole['words'][arm]:.1f}",
            ]
            for arm, seeds in whole["seeds"].items()
        ],
    )


def _accuracy(page: Page, found: dict[str, Any]) -> None:
    whole = found["whole"]
    page.heading("Accuracy")
    groups = list(whole["groups"])
    page.bars(
        groups,
        {told(arm): [_triple(of[g]) for g in groups] for arm, of in whole["accuracy"].items()},
        [whole["chance"].get(group) for group in groups],
        "The dotted line is what it gives to tell of any event of the video. Unseen wordings and "
        "things (a colour over a floor) are in no training video.",
    )
    page.table(_columns(found), _rows(found))
    page.table(
        ["difference in points [95%]", *GRANULARITIES],
        [
            [
                " less ".join(told(arm) for arm in pair.split(" - ")),
                *(points_of(by_group[group]) for group in GRANULARITIES),
            ]
            for pair, by_group in whole["difference"].items()
        ],
    )
    if found["gold"]:
        rows = [[told(arm), _percent(of["all"])] for arm, of in found["gold"].items()]
        page.text(
            "Shown the right segment alone, localized questions are answered so well: the ceiling."
        )
        page.table(["model", "accuracy"], rows)


def _triple(value: dict[str, float]) -> tuple[float, float, float]:
    return value["value"], value["low"], value["high"]


def _grounding(page: Page, found: dict[str, Any]) -> None:
    rows = [
        [told(arm), VIEWS[view], group, _percent(of["whole"]), _percent(of["without"])]
        + [points_of(of["difference"])]
        for view, arms in found["taken"].items()
        for arm, groups in arms.items()
        for group, of in groups.items()
    ]
    if rows:
        page.heading("Is it grounding?")
        page.text(
            "The same questions with what they ask about taken away. A guess stays what it was; an "
            "answer from the frames does not. The last column is the headline: how much is due to "
            "the frames."
        )
        page.table(["model", "asked", "questions", "whole", "without", "whole less without"], rows)


def _shortcut(page: Page, found: dict[str, Any]) -> None:
    page.heading("Where the models look")
    page.text("Accuracy of localized questions by where in the video the segment lies (0: start).")
    depths = list(next(iter(found["depth"].values())))
    page.heat_map(
        [told(arm) for arm in found["depth"]],
        depths,
        [[of[d]["value"] if d in of else None for d in depths] for of in found["depth"].values()],
        corner="model, depth",
    )
    page.text("Whose answer is given to localized questions about all events but the last:")
    names = list(next(iter(found["from"].values())))
    page.table(
        ["model", *names],
        [[told(arm), *(f"{of[n]:.1%}" for n in names)] for arm, of in found["from"].items()],
    )


def _length_and_frames(page: Page, settings: RunConfig, found: dict[str, Any]) -> None:
    page.heading("Longer videos, more frames")
    lengths = list(next(iter(found["length"].values())))
    page.bars(
        lengths,
        {told(arm): [_triple(of[x]) for x in lengths] for arm, of in found["length"].items()},
        caption="Accuracy by the length of the video.",
    )
    if not found["frames"]:
        return
    series = {
        told(arm): (
            [int(frames) for frames in of],
            [value["all"]["value"] for value in of.values()],
        )
        for arm, of in found["frames"].items()
    }
    page.curves(
        [Panel(title="Frames shown", y_label="accuracy", x_label="frames", series=series)],
        f"Training showed {settings.train_frames}.",
    )
    for arm, of in found["frames"].items():
        depths = list(next(iter(of.values()))["depth"])
        page.heat_map(
            [f"{frames} frames" for frames in of],
            depths,
            [[value["depth"].get(depth) for depth in depths] for value in of.values()],
            corner=f"{told(arm)}: frames, depth",
        )


def _needle(page: Page, found: dict[str, Any]) -> None:
    if found["needle"]:
        page.heading("A needle in a haystack of frames")
        page.text(
            "One picture that tells of a thing is put among frames of a film that never shows it, "
            "and asked about: by the number of frames, and how deep among them it stands."
        )
    for arm, cells in found["needle"].items():
        page.heat_map(
            [f"{depth:.0f}%" for depth in cells["depths"]],
            [f"{length} frames" for length in cells["lengths"]],
            cells["map"],
            corner=f"{told(arm)}: depth, frames",
        )


def _harm(page: Page, found: dict[str, Any]) -> None:
    if clips := found["also"].get("short_clips"):
        page.heading("No harm to short clips")
        page.text(clips["told"])
        page.table(["model", "accuracy", "less the base"], clips["rows"])
    if way := found["also"].get("kl"):
        page.heading("How far from the base")
        page.text(way["told"])
        page.table(["model", "nats an answer"], way["rows"])


def _pairs(page: Page, settings: RunConfig, found: dict[str, Any]) -> None:
    pairs = found["pairs"]
    page.heading("The pairs")
    mix = ", ".join(f"{count} {name}" for name, count in sorted(pairs["mix"].items()))
    page.text(f"{pairs['pairs']} pairs ({mix}) out of {pairs['candidates']} candidates.")
    if "audit" in pairs:
        page.text("What they are worth, by the truth that no stage of training sees:")
        names = ("chosen_right", "rejected_wrong", "both_right", "no_answer")
        page.table(
            ["after", "pairs", *(name.replace("_", " ") for name in names)],
            [
                [stage["after"], str(stage["pairs"]), *(f"{stage[name]:.1%}" for name in names)]
                for stage in pairs["audit"]
            ],
        )
        counts = pairs["rejected_counts"]
        page.text(
            f"Of rejected answers to 'how many', {counts['over']} say too many, {counts['under']} "
            f"too few, and {counts['neither']} neither."
        )
    store = FrameStore.open(settings.folder("frames"))
    kept = read_pairs(settings.folder("pairs") / "pairs.jsonl")
    for kind in ("localized", "comprehensive"):
        for pair in [one for one in kept if one.granularity == kind][: PAIRS_SHOWN // 2]:
            show_pair(page, pair, store, settings.train_frames)


def _training(page: Page, settings: RunConfig, found: dict[str, Any]) -> None:
    page.heading("Training")
    panels: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for arm in found["training"]:
        metrics = read_metrics(arm_settings(settings, arm, 0).folder("train"))
        for name in ("sft_loss", "reward_margin", "reward_accuracy"):
            if name in metrics[0]:
                points = [int(one["step"]) for one in metrics], [one[name] for one in metrics]
                panels.setdefault(name, {})[told(arm)] = points
    page.curves(
        [
            Panel(title=name.replace("_", " "), y_label="", series=series)
            for name, series in panels.items()
        ],
        f"Learning rate {settings.train.learning_rate:g}, beta {settings.loss.beta:g}, batches of "
        f"{settings.train.batch_pairs} pairs; the first seed.",
    )
