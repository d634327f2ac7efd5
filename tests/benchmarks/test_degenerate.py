"""Broken models are told from wrong ones."""

import pytest

from benchmarks.degenerate import is_degenerate, unreadable, warnings_of
from benchmarks.task_run import Said
from benchmarks.tasks.task import Scored


def said(text: str, finished: bool = True) -> Said:
    return Said(item="", said=text, tokens=1, finished=finished, asked="")


@pytest.mark.parametrize(
    "text", ["", " \n", "!!!!", "!!!!!!!!!!!!!!!!", "AAAA", "�", "a b a b a b a b", "0000."]
)
def test_what_no_working_model_says(text: str) -> None:
    assert is_degenerate(text)


@pytest.mark.parametrize("text", ["A", "(B)", "yes", "No.", "A ring and a ring.", "1000", "hmm"])
def test_what_a_working_model_may_say(text: str) -> None:
    assert not is_degenerate(text)


def test_many_such_answers_are_shouted_about_and_few_are_not() -> None:
    good = [said("ABCD"[number % 4]) for number in range(20)]
    assert warnings_of(good) == {}
    assert warnings_of([said("!!!!")] * 19) == {}
    assert warnings_of(good + [said("!!!!")] * 19) == {}
    assert (
        "20 of 40 answers are degenerate" in warnings_of(good + [said("!!!!")] * 20)["degenerate"]
    )
    assert list(warnings_of([said("A")] * 20)) == ["same"]
    assert warnings_of([said("A")] * 20, options=False) == {}
    cut = warnings_of([said(f"The video shows {number}", False) for number in range(20)])
    assert list(cut) == ["cut"]


def test_answers_that_no_rule_can_read_are_told() -> None:
    lost = Scored(predicted="", correct=False, parsed=False)
    found = Scored(predicted="A", correct=True)
    assert unreadable([lost, found, found]) == []
    assert "in 2 of 4 answers" in unreadable([lost, found, lost, found])[0]
