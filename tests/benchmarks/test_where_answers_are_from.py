"""Whose answer a model gives: that of the right event, the last, the first, another, or none."""

import pytest

from benchmarks.tasks.item import Item
from benchmarks.tasks.synthetic import where_answers_are_from
from tests.benchmarks.test_synthetic_task import ask, shown

FOUR = shown(
    ("red", "blue", "pink"),
    ("cyan", "green", "orange"),
    ("white", "pink", "cyan"),
    ("green", "yellow", "purple"),
)


def item_about(colour: str, kind: str = "ceiling") -> Item:
    items = ask({"four.mp4": FOUR}, 12, 0)
    return next(item for item in items if item.id == f"four.mp4/{kind}/{colour}")


def from_where(*told: tuple[str, str]) -> dict[str, float]:
    items = [item_about(colour) for colour, _ in told]
    return where_answers_are_from(items, [said for _, said in told], {"four.mp4": FOUR})


@pytest.mark.parametrize(
    ("colour", "said", "place"),
    [
        ("red", "Red thing below blue.", "right"),
        ("red", "red thing below blue", "right"),
        ("red", "Red thing below yellow.", "of the last event"),
        ("red", "Red thing below green.", "of another event"),
        ("white", "White thing below blue.", "of the first event"),
        ("white", "White thing below green.", "of another event"),
        ("white", "White thing below red.", "of none"),
        ("white", "White thing above cyan.", "of none"),
        ("white", "", "of none"),
    ],
)
def test_whose_answer_it_is(colour: str, said: str, place: str) -> None:
    found = from_where((colour, said))
    assert found.pop(place) == 1.0 and set(found.values()) == {0.0} and len(found) == 4


def test_shares_of_answers_add_up_and_pass_over_the_rest() -> None:
    told = [
        (item_about("red", "both"), "Red thing between yellow and purple."),
        (item_about("cyan", "floor"), "Cyan thing above purple."),
        (item_about("cyan"), "Cyan thing below green."),
        (item_about("white"), "I do not know."),
        (item_about("green"), "Green thing below yellow."),  # the last event itself
        (item_about("green", "floor"), "Green thing above pink."),
        *((item, item.answer) for item in ask({"four.mp4": FOUR}, 0, 9)),
    ]
    items, said = zip(*told, strict=True)
    found = where_answers_are_from(items, said, {"four.mp4": FOUR})
    assert found == {
        "right": 0.25,
        "of the last event": 0.5,
        "of the first event": 0.0,
        "of another event": 0.0,
        "of none": 0.25,
    }
    assert set(where_answers_are_from([], [], {}).values()) == {0.0}


def test_a_right_answer_is_right_whoever_else_has_it() -> None:
    same = shown(("red", "blue", "pink"), ("cyan", "green", "orange"), ("white", "pink", "cyan"),
                 ("pink", "blue", "green"), ("green", "blue", "white"))  # fmt: skip
    (item,) = [i for i in ask({"a.mp4": same}, 12, 0) if i.id == "a.mp4/ceiling/cyan"]
    assert where_answers_are_from([item], [item.answer], {"a.mp4": same})["right"] == 1.0
    # First and last say the same: it is the last one that is named.
    found = where_answers_are_from([item], ["Cyan thing below blue."], {"a.mp4": same})
    assert found["of the last event"] == 1.0
