"""Is a base model fit for the demo's experiment? It must see well and look in the wrong place.

Both are told of localized questions, since only these have a segment that can be shown alone.

A base that cannot answer with the right segment before it has nothing to teach itself; one that is
right on whole videos has nothing to learn. Development videos decide; held-out ones are not looked
at.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arms import summarise_arms
from benchmarks.tasks.synthetic import where_answers_are_from
from tpo_jax.cli.config import load_config
from tpo_jax.cli.demo import make_videos
from tpo_jax.cli.experiment import BASE, GOLD, WHOLE, ask_arms, open_exam, read_answers
from tpo_jax.cli.settings import read_settings
from tpo_jax.errors import InputError

GOLD_AT_LEAST = 0.85
WHOLE_ABOVE_CHANCE = 0.10
WHOLE_AT_MOST = 0.60


def examine_base(checkpoint: Path, work: Path) -> dict[str, Any]:
    """Accuracy on the demo's development videos, and where its answers come from.

    Args:
      checkpoint: the folder of the base.
      work: folder for videos, frames and answers; used again if it is there.
    """
    settings = replace(
        read_settings(load_config("demo")), run_dir=str(work), checkpoint=str(checkpoint)
    )
    make_videos(settings, ("development",))
    exam = open_exam(settings, "development")
    told: dict[str, Any] = {}
    for view in (GOLD, WHOLE):
        ask_arms(settings, exam, view, [BASE])
        items, answers = read_answers(settings, exam, view, [BASE])
        summary = summarise_arms(items, answers, [])
        told[view.name] = {
            group: accuracy["value"] for group, accuracy in summary["accuracy"][BASE].items()
        }
        told[f"{view.name}_chance"] = summary["chance"]
    said = [record.said for record in answers[BASE][0]]
    told["answers_before_the_last_event"] = where_answers_are_from(items, said, exam.truth)
    return told


def check_base(told: dict[str, Any]) -> None:
    """Raises InputError when the base is not fit; says by how much."""
    gold, whole = (told[view]["localized"] for view in ("gold", "whole"))
    chance = told["whole_chance"]["localized"]
    if np.isnan(gold) or gold < GOLD_AT_LEAST:
        raise InputError(
            f"the base does not see well enough: of the right segment alone it answers {gold:.1%} "
            f"of the questions about the development videos, and {GOLD_AT_LEAST:.0%} are needed; "
            "teach it longer"
        )
    low = chance + WHOLE_ABOVE_CHANCE
    if not low <= whole <= WHOLE_AT_MOST:
        raise InputError(
            f"the base answers {whole:.1%} of localized questions about whole development videos; "
            f"the experiment needs {low:.1%} to {WHOLE_AT_MOST:.0%}: above, there is nothing to "
            "learn, below, it has nothing to teach itself; change overlooked of its lessons"
        )
