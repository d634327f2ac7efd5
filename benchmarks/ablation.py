"""Everything that `tpo demo` leaves out: more arms, more ways of asking, harm and distance.

    python -m benchmarks.ablation                      # after `make demo`; an hour on two cores
    python -m benchmarks.ablation --split=development  # what settings may be chosen by

Goes on where it was when it is run again. The demo's report and summary.json then show it all.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.distance import kl_to
from benchmarks.reliability.short_clips import score
from data_pipelines.artefacts import write_json
from tpo_jax.api import Answerer, LoadedModel, load
from tpo_jax.cli.arms import ARMS
from tpo_jax.cli.config import load_config
from tpo_jax.cli.demo import keep_compiled, make_videos
from tpo_jax.cli.experiment import (
    BASE,
    GOLD,
    TAKEN,
    WHOLE,
    Exam,
    ask_arms,
    frames_view,
    models_of,
    open_exam,
    train_arms,
)
from tpo_jax.cli.experiment_page import make_experiment_report, told
from tpo_jax.cli.experiment_results import FRAMES
from tpo_jax.cli.export import load_policy
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.generation.sampling import SamplingConfig

MARGIN = 0.03  # of accuracy on short clips that an arm may lose and still do no harm
CLIPS = 60
CLIP_FRAMES = (6, 12)
KL_ITEMS = 120
ASKED = (BASE, "sft", "tpo")  # in every way


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, ask, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo", help="and --config.KEY=VALUE, as for tpo demo")
    parser.add_argument("--split", choices=("development", "heldout"), default="heldout")
    parser.add_argument("--arms", default=",".join(ARMS), help="default: %(default)s")
    parser.add_argument("--only-arms", action="store_true", help="whole videos only, nothing else")
    given, overrides = parser.parse_known_args(arguments)
    for unknown in [one for one in overrides if not one.startswith("--config.")]:
        parser.error(f"unknown option {unknown}")
    settings = read_settings(load_config(given.config, overrides))
    keep_compiled(settings)
    make_videos(settings, ("train", given.split))
    arms = given.arms.split(",")
    train_arms(settings, arms)
    exam = open_exam(settings, given.split)
    ask_arms(settings, exam, WHOLE, [BASE, *arms])
    if not given.only_arms:
        asked = [arm for arm in ASKED if arm in (BASE, *arms)]
        ask_arms(settings, exam, GOLD, [BASE])
        for view in TAKEN.values():
            ask_arms(settings, exam, view, asked)
        for frames in FRAMES:
            if frames != settings.eval.frames:
                ask_arms(settings, exam, frames_view(frames), asked)
        measure(settings, exam, [BASE, *arms])
    make_experiment_report(settings, exam)


def measure(settings: RunConfig, exam: Exam, arms: Sequence[str]) -> None:
    """Short clips and distance of every model, into RUN_DIR/also; done once for a set of models."""
    out = settings.folder("also")
    out.mkdir(parents=True, exist_ok=True)
    known = _read(out / "models.json")
    base = load(settings.checkpoint)
    labels = [(arm, label, own) for arm in arms for label, own in models_of(settings, arm).items()]
    with stage_progress("short clips and distance", len(labels)) as update:
        for number, (arm, label, own) in enumerate(labels, start=1):
            model = base if arm == BASE else load_policy(own)
            if known.get(label, {}).get("model") != model.fingerprint:
                known[label] = {
                    "model": model.fingerprint,
                    "clips": _short_clips(settings, model),
                    "kl": 0.0 if arm == BASE else _distance(settings, exam, base, model),
                }
                write_json(out / "models.json", known)
            update(number, label)
    write_json(out / "short_clips.json", _told_clips(known, settings, arms))
    write_json(out / "kl.json", _told_distance(known, settings, arms))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _short_clips(settings: RunConfig, model: LoadedModel) -> float:
    """Mean accuracy over kinds of question and lengths of clip."""
    answerer = Answerer(
        model,
        prompts=settings.prompts,
        sampling=SamplingConfig(max_new_tokens=40),
        compute_dtype=settings.compute_dtype,
    )
    of_kinds = [score(model, answerer, frames, CLIPS) for frames in CLIP_FRAMES]
    return float(np.mean([value for found in of_kinds for value in found.values()]))


def _distance(settings: RunConfig, exam: Exam, base: LoadedModel, policy: LoadedModel) -> float:
    return kl_to(
        base,
        policy,
        exam.items[:: max(1, len(exam.items) // KL_ITEMS)],
        exam.store,
        prompts=settings.prompts,
        frames=settings.eval.frames,
        max_new_tokens=settings.sampling.max_new_tokens,
    )


def _mean(known: dict[str, Any], settings: RunConfig, arm: str, what: str) -> float:
    return float(np.mean([known[label][what] for label in models_of(settings, arm)]))


def _told_clips(known: dict[str, Any], settings: RunConfig, arms: Sequence[str]) -> dict[str, Any]:
    base = _mean(known, settings, BASE, "clips")
    rows = []
    for arm in arms:
        value = _mean(known, settings, arm, "clips")
        held = "" if arm == BASE else f"{100 * (value - base):+.1f} points"
        rows.append([told(arm), f"{value:.1%}", held])
    return {
        "told": f"Accuracy on {CLIPS} clips each of {CLIP_FRAMES[0]} and {CLIP_FRAMES[1]} frames, "
        f"mean over kinds of question and seeds. An arm that loses more than {100 * MARGIN:.0f} "
        "points does harm.",
        "rows": rows,
        "margin": MARGIN,
    }


def _told_distance(
    known: dict[str, Any], settings: RunConfig, arms: Sequence[str]
) -> dict[str, Any]:
    return {
        "told": "KL divergence from the base: log-prob of the model's own answers, drawn at "
        "temperature 1, less what the base gives them.",
        "rows": [
            [told(arm), f"{_mean(known, settings, arm, 'kl'):.2f}"] for arm in arms if arm != BASE
        ],
    }


if __name__ == "__main__":
    main()
