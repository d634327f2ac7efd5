"""Arms compared: accuracies over seeds, differences seed by seed, and who the base is to them."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.arms import (
    accuracies,
    bins_of,
    by_seed,
    chances,
    difference,
    groups_of,
    right_SI,
    summarise_arms,
    words,
)
from benchmarks.runner import Record
from benchmarks.tasks.item import Granularity, Item
from data_pipelines.errors import InputError


def item(number: int, granularity: Granularity, kind: str, wording: str) -> Item:
    return Item(
        id=str(number),
        video=f"{number % 3}.mp4",
        granularity=granularity,
        kind=kind,
        question="?",
        answer="!",
        chance=0.5 if granularity == "localized" else 0.25,
        groups={"wording": wording},
    )


ITEMS = [
    item(0, "comprehensive", "order", "seen"),
    item(1, "localized", "floor", "unseen"),
    item(2, "localized", "ceiling", "seen"),
    item(3, "localized", "floor", "seen"),
    item(4, "comprehensive", "count", "unseen"),
    item(5, "localized", "ceiling", "seen"),
]


def said(right: str, text: str = "so it is") -> list[Record]:
    """A model's records: 1 for right, 0 for wrong, in the order of the items."""
    return [
        Record(item=one.id, model="m", said=text, correct=digit == "1", asked="x")
        for one, digit in zip(ITEMS, right, strict=True)
    ]


def test_groups_by_hand() -> None:
    found = {name: places.tolist() for name, places in groups_of(ITEMS).items()}
    assert found == {
        "all": [0, 1, 2, 3, 4, 5],
        "localized": [1, 2, 3, 5],
        "floor": [1, 3],
        "ceiling": [2, 5],
        "comprehensive": [0, 4],
        "order": [0],
        "count": [4],
        "seen wording": [0, 2, 3, 5],
        "unseen wording": [1, 4],
    }
    assert list(found)[:2] == ["all", "localized"]  # as a page shows them
    assert chances(ITEMS, groups_of(ITEMS))["all"] == pytest.approx((4 * 0.5 + 2 * 0.25) / 6)
    unknown = [*ITEMS[:5], replace(ITEMS[5], chance=None)]
    told = chances(unknown, groups_of(unknown))
    assert not {"all", "localized", "ceiling", "seen wording"} & told.keys()
    assert told["floor"] == 0.5


def test_values_between_edges() -> None:
    found = bins_of([0.0, 0.19, 0.2, 0.5, 1.0, 1.3], (0.0, 0.2, 0.6, 1.0), " s")
    assert {name: places.tolist() for name, places in found.items()} == {
        "0 to 0.2 s": [0, 1],
        "0.2 to 0.6 s": [2, 3],
        "0.6 to 1 s": [4, 5],  # the last holds its edge, and what is beyond
    }


def test_right_answers_of_each_seed() -> None:
    values = right_SI(ITEMS, [said("101010"), said("000001")])
    assert values.tolist() == [[1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 1]]
    answers = {"base": [said("111000", "one")], "tpo": [said("101010"), said("000001", "a b c d")]}
    assert by_seed(ITEMS, answers) == {"base": [0.5], "tpo": [0.5, pytest.approx(1 / 6)]}
    assert words(answers) == {"base": 1.0, "tpo": 3.5}
    found = accuracies(ITEMS, answers, groups_of(ITEMS))
    assert found["tpo"]["all"]["value"] == pytest.approx(4 / 12)
    assert found["tpo"]["ceiling"]["value"] == 0.5
    assert found["base"]["comprehensive"]["value"] == 0.5
    assert accuracies(ITEMS, answers, {"none": np.arange(0)}) == {"base": {}, "tpo": {}}


def test_records_of_other_items_are_refused() -> None:
    with pytest.raises(InputError, match="do not belong together"):
        right_SI(ITEMS, [said("111111"), said("111111")[::-1]])
    with pytest.raises(InputError, match="do not belong together"):
        right_SI(ITEMS, [said("111111")[:5]])


def test_a_base_is_compared_with_every_seed_and_arms_seed_by_seed() -> None:
    groups = groups_of(ITEMS)
    base, one, other = [said("000000")], said("111111"), said("000000")
    found = difference(ITEMS, [one, other], base, groups)["all"]
    assert found == {"value": 0.5, "low": 0.0, "high": 1.0}  # either seed may be drawn twice
    # Two arms that share their luck seed by seed differ by nothing, however far seeds lie apart.
    same = difference(ITEMS, [one, other], [one, other], groups)["all"]
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}
    crossed = difference(ITEMS, [one, other], [other, one], groups)["all"]
    assert crossed == {"value": 0.0, "low": -1.0, "high": 1.0}


def test_a_summary_holds_every_arm_and_the_differences_asked_for() -> None:
    answers = {"base": [said("000111")], "sft": [said("100111")], "tpo": [said("110111")]}
    found = summarise_arms(ITEMS, answers, [("tpo", "base"), ("tpo", "sft")])
    assert (found["items"], found["videos"]) == (6, 3)
    assert list(found["accuracy"]) == ["base", "sft", "tpo"]
    assert list(found["difference"]) == ["tpo - base", "tpo - sft"]
    gain = {pair: of["all"]["value"] for pair, of in found["difference"].items()}
    assert gain == {"tpo - base": pytest.approx(2 / 6), "tpo - sft": pytest.approx(1 / 6)}
    assert found["groups"]["localized"] == 4
