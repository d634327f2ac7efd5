"""The judge's verdict, and what each filter drops."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.curation.filters import reason_to_drop
from data_pipelines.curation.judge import RuleJudge, Verdict
from data_pipelines.curation.questions import Candidate
from data_pipelines.curation.text_rules import TextRules, repeated
from data_pipelines.errors import InputError

GOOD = Verdict(chosen_better=True, unambiguous=True, chosen_right=True, why="because")
POOR = Verdict(chosen_better=False, unambiguous=False, chosen_right=False, why="because")
RIGHT, WRONG = "The ceiling is blue.", "The ceiling is green."
OTHER = "I see no red thing."


def candidate(ambiguous: str = "") -> Candidate:
    return Candidate(
        granularity="localized",
        kind="ceiling",
        question="What colour is the ceiling over the red thing?",
        segment=2,
        expected=RIGHT,
        ambiguous=ambiguous,
    )


def verdict(better: bool, unambiguous: bool, right: bool) -> Verdict:
    return Verdict(chosen_better=better, unambiguous=unambiguous, chosen_right=right, why="because")


@pytest.mark.parametrize(
    ("chosen", "rejected", "judged", "name"),
    [
        (RIGHT, WRONG, GOOD, None),
        ("", WRONG, GOOD, "empty"),
        (RIGHT, "", GOOD, "empty"),
        ("", "", POOR, "empty"),
        (RIGHT, RIGHT, GOOD, "identical"),
        (RIGHT, RIGHT, POOR, "identical"),
        (RIGHT, WRONG, verdict(True, False, True), "ambiguous"),
        (RIGHT, WRONG, verdict(False, False, False), "ambiguous"),
        (RIGHT, WRONG, verdict(False, True, False), "chosen_wrong"),
        (RIGHT, WRONG, verdict(True, True, False), "chosen_wrong"),
        (RIGHT, WRONG, verdict(False, True, True), "rejected_not_worse"),
    ],
)
def test_each_filter(chosen: str, rejected: str, judged: Verdict, name: str | None) -> None:
    objection = reason_to_drop(chosen, rejected, judged)
    if name is None:
        assert objection is None
        return
    assert objection is not None and objection[0] == name
    judges_word = name in ("ambiguous", "chosen_wrong", "rejected_not_worse")
    assert (objection[1] == "because") == judges_word and objection[1]


@pytest.mark.parametrize(
    ("chosen", "rejected", "name"),
    [(RIGHT, WRONG, None), ("", WRONG, "empty"), (RIGHT, "", "empty"), (RIGHT, RIGHT, "identical")],
)
def test_without_the_post_filter_the_verdict_drops_nothing(
    chosen: str, rejected: str, name: str | None
) -> None:
    for better, unambiguous, right in itertools.product((True, False), repeat=3):
        judged = verdict(better, unambiguous, right)
        objection = reason_to_drop(chosen, rejected, judged, post_filter=False)
        assert (objection and objection[0]) == name


@pytest.mark.parametrize(
    ("chosen", "rejected", "better", "right"),
    [
        (RIGHT, WRONG, True, True),
        (RIGHT, RIGHT, False, True),
        (WRONG, RIGHT, False, False),
        (WRONG, OTHER, False, False),
        (WRONG, WRONG, False, False),
        (RIGHT + " ", WRONG, False, False),
    ],
)
def test_the_rule_judge(chosen: str, rejected: str, better: bool, right: bool) -> None:
    judged = RuleJudge().judge(candidate(), chosen, rejected)
    assert (judged.chosen_better, judged.chosen_right) == (better, right)
    assert judged.unambiguous and RIGHT in judged.why
    # Ambiguity is the question's, whatever the answers; and its reason is the one told.
    judged = RuleJudge().judge(candidate("segment 7: The ceiling is pink."), chosen, rejected)
    assert (judged.chosen_better, judged.chosen_right) == (better, right)
    assert not judged.unambiguous and judged.why == "segment 7: The ceiling is pink."


def test_only_right_against_wrong_is_kept() -> None:
    answers = (RIGHT, WRONG, OTHER, "")
    kept = [
        (chosen, rejected)
        for chosen in answers
        for rejected in answers
        for judged in [RuleJudge().judge(candidate(), chosen, rejected)]
        if reason_to_drop(chosen, rejected, judged) is None
    ]
    assert kept == [(RIGHT, WRONG), (RIGHT, OTHER)]


def test_a_pair_records_the_verdict() -> None:
    assert POOR.to_json() == {
        "chosen_better": False,
        "unambiguous": False,
        "chosen_right": False,
        "why": "because",
        "readable": True,
    }


# --------------------------------------------------------------------------------- the two texts

OFF = TextRules(inside=False, fewest=0, most=0, length_ratio=0.0, repeats=0)


@pytest.mark.parametrize(
    ("rules", "chosen", "rejected", "name"),
    [
        (OFF, "Yes", "Yes, it is red.", None),
        (TextRules(), "Yes", "Yes, it is red.", "inside_other"),
        (TextRules(), "It is red, yes.", "it is RED", "inside_other"),
        (TextRules(), "It is red", "It is reddish", None),  # words, not letters
        (TextRules(), "It is red", "it is  red.", "identical"),
        (TextRules(), "?", "It is red", "too_short"),
        (replace(OFF, fewest=3), "It is red", "Blue it", "too_short"),
        (replace(OFF, most=3), "It is red", "It is not red", "too_long"),
        (replace(OFF, most=3), "It is red", "It is blue", None),
        (replace(OFF, length_ratio=2.0), "a b c d e", "f g", "lengths_apart"),
        (replace(OFF, length_ratio=2.0), "a b c d", "f g", None),
        (TextRules(), "!!!!!!!!!!", "It is red", "repetitive"),
        (TextRules(), "A red dog.", "a cat and a dog and " * 4 + "a bird", None),
        (TextRules(), "A red dog.", "a cat and a dog and " * 8, "repetitive"),
        (OFF, "A red dog.", "a cat and a dog and " * 8, None),
        (TextRules(), "It cost 10000000000 dollars.", "It was free.", None),
    ],
)
def test_what_the_texts_say(rules: TextRules, chosen: str, rejected: str, name: str | None) -> None:
    for pair in ((chosen, rejected), (rejected, chosen)):
        objection = reason_to_drop(*pair, GOOD, texts=rules)
        assert (objection and objection[0]) == name
        assert objection == reason_to_drop(*pair, POOR, post_filter=False, texts=rules)


@given(
    unit=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4),
    times=st.integers(2, 6),
    asked=st.integers(2, 6),
)
def test_words_in_a_row_are_found(unit: list[str], times: int, asked: int) -> None:
    found = repeated(" ".join(["x", *unit * times, "y"]), asked)
    if times >= asked:
        assert found is not None
    if len(set(unit)) == len(unit) and times < asked:
        assert found is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fewest": -1}, "curate.texts.fewest is -1; give 0 or more"),
        ({"most": 2, "fewest": 3}, "curate.texts.most is 2"),
        ({"length_ratio": 0.5}, "curate.texts.length_ratio is 0.5"),
        ({"repeats": 1}, "curate.texts.repeats is 1"),
    ],
)
def test_bounds_that_make_no_sense(changes: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TextRules(**changes)  # type: ignore[arg-type]
