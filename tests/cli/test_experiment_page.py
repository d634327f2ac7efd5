"""What the page says of a difference is what its interval says."""

from typing import Any

import pytest

from tpo_jax.cli.arms import ARMS
from tpo_jax.cli.experiment_page import headline, points_of, told
from tpo_jax.cli.experiment_results import AGAINST, NAMES


def gain(low: float, value: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def found(**differences: dict[str, float]) -> dict[str, Any]:
    """Of "tpo_base" and the like; the other groups say the contrary."""
    contrary = {"localized": gain(-0.9, -0.8, -0.7), "comprehensive": gain(0.7, 0.8, 0.9)}
    return {
        "whole": {
            "difference": {
                pair.replace("_", " - "): {"all": one} | contrary
                for pair, one in differences.items()
            }
        }
    }


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (gain(0.021, 0.1, 0.18), "TPO answers better than SFT: +10.0 [+2.1, +18.0] points."),
        (gain(0.0001, 0.1, 0.18), "TPO answers better than SFT: +10.0 [+0.0, +18.0] points."),
        (gain(-0.18, -0.1, -0.02), "TPO answers worse than SFT: -10.0 [-18.0, -2.0] points."),
        (
            gain(-0.02, 0.1, 0.18),
            "TPO and SFT cannot be told apart: +10.0 [-2.0, +18.0] points, "
            "an interval that holds zero.",
        ),
    ],
)
def test_one_sentence_of_one_difference(interval: dict[str, float], said: str) -> None:
    assert headline(found(tpo_sft=interval)) == [said]


@pytest.mark.parametrize("interval", [gain(0.0, 0.1, 0.2), gain(-0.2, -0.1, 0.0), gain(0, 0, 0)])
def test_an_interval_that_touches_zero_tells_nothing_apart(interval: dict[str, float]) -> None:
    (sentence,) = headline(found(tpo_base=interval))
    assert "TPO and base cannot be told apart" in sentence
    assert "better" not in sentence and "worse" not in sentence


def test_every_difference_is_told_in_order() -> None:
    sentences = headline(
        found(
            tpo_base=gain(0.1, 0.2, 0.3),
            tpo_random=gain(-0.3, -0.2, -0.1),
            sft_base=gain(-0.1, 0.0, 0.1),
        )
    )
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "TPO answers better than base",
        "TPO answers worse than random negatives",
        "SFT and base cannot be told apart",
    ]


def test_points_and_names() -> None:
    assert points_of(gain(-0.0123, 0.0456, 0.1)) == "+4.6 [-1.2, +10.0]"
    assert {told(arm) for arm in ("base", "sft", "dpo")} == {"base", "SFT", "DPO"}
    assert told("tpo_localized") == "TPO, localized pairs"
    names = [told(arm) for arm in NAMES]
    assert len(set(names)) == len(names) == len(ARMS) + 1
    assert all(set(pair) <= set(NAMES) for pair in AGAINST)
