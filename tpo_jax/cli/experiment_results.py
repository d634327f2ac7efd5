"""What an experiment found, as plain data: of every view that was asked, and of the pairs.

Only this and `experiment.py` open the truth; no stage of training does.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arms import (
    accuracies,
    bins_of,
    difference,
    groups_of,
    summarise_arms,
)
from benchmarks.pair_audit import audit_pairs, miscounts
from benchmarks.runner import Record
from benchmarks.tasks.item import Item
from benchmarks.tasks.synthetic import right_answers, where_answers_are_from
from data_pipelines.artefacts import read_manifest
from data_pipelines.frames import FrameStore
from data_pipelines.synthetic import read_truth
from tpo_jax import __version__
from tpo_jax.cli.arms import ARMS, arm_settings
from tpo_jax.cli.eval_needle import read_map
from tpo_jax.cli.experiment import (
    BASE,
    GOLD,
    TAKEN,
    WHOLE,
    Exam,
    frames_view,
    needle_folder,
    read_answers,
)
from tpo_jax.cli.settings import RunConfig
from tpo_jax.training.run_log import read_metrics
from tpo_jax.training.step_clock import without_timing

FRAMES = (8, 16, 32, 48, 64)
DEPTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LENGTH_EDGES = (0, 36, 42, 48, 100)  # seconds
NAMES = {BASE: "base"} | {name: arm.told for name, arm in ARMS.items()}
# Differences that are told: the method less the base and its controls; a control less the base.
AGAINST = (("tpo", "base"), ("tpo", "sft"), ("tpo", "random"), ("tpo", "dpo"), ("sft", "base"))


def find_results(settings: RunConfig, exam: Exam) -> dict[str, Any]:
    """Everything that is there, the same for the same answers."""
    arms = [BASE, *ARMS]
    items, answers = read_answers(settings, exam, WHOLE, arms)
    against = [pair for pair in AGAINST if set(pair) <= set(answers)]
    return {
        "version": __version__,
        "split": exam.split,
        "whole": summarise_arms(items, answers, against),
        "gold": _gold(settings, exam),
        "length": _by_length(exam, items, answers),
        "depth": _by_depth(exam, items, answers),
        "frames": _by_frames(settings, exam, arms),
        "from": {
            arm: _mean([where_answers_are_from(items, _said(one), exam.truth) for one in said])
            for arm, said in answers.items()
        },
        "taken": {view: _taken(settings, exam, view, answers, items) for view in TAKEN},
        "needle": {
            arm: found
            for arm in (BASE, *ARMS)
            if (found := read_map(needle_folder(settings, arm))) is not None
        },
        "pairs": _pairs(settings),
        "training": _training(settings),
        "also": _also(settings),
    }


def _said(records: list[Record]) -> list[str]:
    return [record.said for record in records]


def _mean(told: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in told])) for name in told[0]}


def _gold(settings: RunConfig, exam: Exam) -> dict[str, Any]:
    """The ceiling: models shown the right segment alone."""
    items, answers = read_answers(settings, exam, GOLD, [BASE, *ARMS])
    return accuracies(items, answers, groups_of(items)) if answers else {}


def _by_length(exam: Exam, items: list[Item], answers: dict) -> dict[str, Any]:
    lengths = bins_of([exam.duration(item.video) for item in items], LENGTH_EDGES, " s")
    return accuracies(items, answers, lengths)


def _by_depth(exam: Exam, items: list[Item], answers: dict) -> dict[str, Any]:
    """Localized questions, by where in the video the segment lies."""
    places = [place for place, item in enumerate(items) if item.segment is not None]
    chosen = [items[place] for place in places]
    of_chosen = {
        arm: [[records[place] for place in places] for records in said]
        for arm, said in answers.items()
    }
    return accuracies(chosen, of_chosen, bins_of(_depths(exam, chosen), DEPTHS, ""))


def _depths(exam: Exam, items: list[Item]) -> list[float]:
    """The middle of each item's segment as a part of its video."""
    return [
        sum(item.segment) / 2 / exam.duration(item.video)
        for item in items
        if item.segment is not None
    ]


def _by_frames(settings: RunConfig, exam: Exam, arms: list[str]) -> dict[str, Any]:
    """arm -> frames shown -> accuracy of all questions, and of localized ones by depth."""
    found: dict[str, Any] = {}
    for frames in FRAMES:
        view = WHOLE if frames == settings.eval.frames else frames_view(frames)
        items, answers = read_answers(settings, exam, view, arms)
        overall = accuracies(items, answers, {"all": np.arange(len(items))})
        depth = _by_depth(exam, items, answers)
        for arm in answers:
            found.setdefault(arm, {})[str(frames)] = {
                "all": overall[arm]["all"],
                "depth": {name: value["value"] for name, value in depth[arm].items()},
            }
    return {arm: told for arm, told in found.items() if len(told) > 1}


def _taken(
    settings: RunConfig, exam: Exam, view: str, whole: dict, whole_items: list[Item]
) -> dict[str, Any]:
    """arm -> group -> accuracy with everything, without, and the difference between them."""
    items, answers = read_answers(settings, exam, TAKEN[view], [BASE, *ARMS])
    place = {item.id: number for number, item in enumerate(whole_items)}
    groups = {name: at for name, at in groups_of(items).items() if name in _GRANULARITIES}
    found: dict[str, Any] = {}
    for arm, without in answers.items():
        with_all = [[records[place[item.id]] for item in items] for records in whole[arm]]
        told = accuracies(items, {"whole": with_all, "without": without}, groups)
        gain = difference(items, with_all, without, groups)
        found[arm] = {
            group: {"whole": told["whole"][group], "without": told["without"][group]}
            | {"difference": gain[group]}
            for group in gain
        }
    return found


_GRANULARITIES = ("localized", "comprehensive")


def _pairs(settings: RunConfig) -> dict[str, Any]:
    """Counts of the curation, and its audit against the truth of the training videos."""
    folder = settings.folder("pairs")
    manifest = read_manifest(folder, "pairs")
    told = {name: manifest[name] for name in ("pairs", "mix", "kinds", "candidates", "dropped")}
    truth_file = Path(settings.run_dir) / "truth" / "train.json"
    if not truth_file.exists():
        return told
    of_video = {name: right_answers(shown) for name, shown in read_truth(truth_file).items()}
    store = FrameStore.open(settings.folder("frames"))
    truth = {video: of_video[store.info(video).names[0]] for video in store.videos}
    pairs, dropped = _lines(folder / "pairs.jsonl"), _lines(folder / "dropped.jsonl")
    return told | {
        "audit": audit_pairs(pairs, dropped, truth),
        "rejected_counts": miscounts(pairs, truth),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _training(settings: RunConfig) -> dict[str, Any]:
    """arm -> what its first seed's training ended with."""
    found = {}
    for arm in ARMS:
        folder = arm_settings(settings, arm, 0).folder("train")
        if folder.exists():
            metrics = [without_timing(line) for line in read_metrics(folder)]
            found[arm] = {"steps": len(metrics), "first": metrics[0], "last": metrics[-1]}
    return found


def _also(settings: RunConfig) -> dict[str, Any]:
    """What `benchmarks/ablation.py` measured beside: short clips, and the way from the base."""
    folder = settings.folder("also")
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
