"""The row: what every token is, where it stands, and what it may see."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.batches import (
    PAD_BRANCH,
    PROMPT_BRANCH,
    RowShape,
    fitting_shape,
    make_row,
    prompt_row,
    round_up,
    stack,
)
from data_pipelines.errors import InputError
from data_pipelines.prompts import Prompt

IDS = st.integers(1, 999)


def prompt_of(before: list[int], visual: int, after: list[int]) -> Prompt:
    tokens = np.array([*before, *[0] * visual, *after], np.int32)
    index = np.full(len(tokens), -1, np.int32)
    index[len(before) : len(before) + visual] = np.arange(visual)
    return Prompt(tokens=tokens, visual_index=index)


def supervise(prompt: Prompt, places: list[int]) -> Prompt:
    return replace(prompt, supervised=np.isin(np.arange(len(prompt.tokens)), places))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Prompt, list[list[int]], RowShape]:
    prompt = prompt_of(
        draw(st.lists(IDS, min_size=1, max_size=5)),
        draw(st.integers(0, 6)),
        draw(st.lists(IDS, min_size=1, max_size=5)),
    )
    prompt = supervise(prompt, draw(st.lists(st.integers(1, len(prompt.tokens) - 1), max_size=6)))
    answers = draw(st.lists(st.lists(IDS, min_size=1, max_size=7), min_size=1, max_size=3))
    shape = RowShape(
        prompt_tokens=len(prompt.tokens) + draw(st.integers(0, 6)),
        answer_tokens=max(map(len, answers)) + draw(st.integers(0, 4)),
        prompt_targets=int(prompt.supervised.sum()) + draw(st.integers(0, 3)),
    )
    return prompt, answers, shape


def test_a_row_written_by_hand() -> None:
    prompt = prompt_of([7], 2, [8, 9])
    row = make_row(prompt, [[4, 5, 6], [3]], RowShape(prompt_tokens=7, answer_tokens=4))
    told = {name: values.tolist() for name, values in row.items()}
    assert told == {
        "tokens": [0, 0, 7, 0, 0, 8, 9, 4, 5, 6, 0, 3, 0, 0, 0],
        "visual_index": [-1, -1, -1, 0, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1],
        "positions": [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8],
        "branch": [-1, -1, 0, 0, 0, 0, 0, 1, 1, 1, -1, 2, -1, -1, -1],
        "answers": [[4, 5, 6, 0], [3, 0, 0, 0]],
        "answer_mask": [[1, 1, 1, 0], [1, 0, 0, 0]],
        "prompt_targets": [],
        "prompt_places": [],
        "prompt_mask": [],
    }
    assert_types(row)


def assert_types(row: dict[str, np.ndarray]) -> None:
    types = {name: values.dtype for name, values in row.items()}
    assert types == {name: np.float32 if "mask" in name else np.int32 for name in row}


def test_targets_in_the_prompt_written_by_hand() -> None:
    prompt = supervise(prompt_of([7, 6], 2, [8, 9]), [1, 4])
    row = make_row(prompt, [[4]], RowShape(prompt_tokens=8, answer_tokens=1, prompt_targets=3))
    # In the row: two of padding, 7, 6, the video, 8, 9. The last of the video predicts the 8.
    assert row["tokens"].tolist() == [0, 0, 7, 6, 0, 0, 8, 9, 4]
    assert row["prompt_targets"].tolist() == [6, 8, 0]
    assert row["prompt_places"].tolist() == [2, 5, 0]
    assert row["prompt_mask"].tolist() == [1, 1, 0]
    assert_types(row)
    without = make_row(
        prompt_of([7, 6], 2, [8, 9]), [[4]], RowShape(prompt_tokens=8, answer_tokens=1)
    )
    for name, values in without.items():
        if not name.startswith("prompt_"):
            np.testing.assert_array_equal(row[name], values)


@given(cases())
def test_the_token_before_a_target_of_the_prompt_predicts_it(
    case: tuple[Prompt, list[list[int]], RowShape],
) -> None:
    prompt, answers, shape = case
    row = make_row(prompt, answers, shape)
    learned = row["prompt_mask"] > 0
    places, targets = row["prompt_places"], row["prompt_targets"]
    assert places.shape == targets.shape == learned.shape == (shape.prompt_targets,)
    assert targets[learned].tolist() == prompt.tokens[prompt.supervised].tolist()
    np.testing.assert_array_equal(row["tokens"][places[learned] + 1], targets[learned])
    behind = row["positions"][places[learned]] + 1
    assert behind.tolist() == np.flatnonzero(prompt.supervised).tolist()
    assert (row["branch"][places[learned]] == PROMPT_BRANCH).all()
    # What is empty still names a place in the row and a row of the vocabulary.
    assert not places[~learned].any() and not targets[~learned].any()


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([1, 3], "its prompt has 2 supervised tokens, more than the row's 1"),
        ([0], "its prompt's first token is supervised, but nothing predicts it"),
    ],
)
def test_prompt_targets_that_cannot_be_are_refused_by_name(places: list[int], told: str) -> None:
    prompt = supervise(prompt_of([7], 2, [8, 9]), places)
    shape = RowShape(prompt_tokens=5, answer_tokens=1, prompt_targets=1)
    with pytest.raises(InputError, match=f"^pair ab12: {told}$"):
        make_row(prompt, [[4]], shape, name="pair ab12")


@given(cases())
def test_taking_away_the_padding_gives_back_what_was_put_in(
    case: tuple[Prompt, list[list[int]], RowShape],
) -> None:
    prompt, answers, shape = case
    row = make_row(prompt, answers, shape)
    length = shape.prompt_tokens + len(answers) * shape.answer_tokens
    for name in ("tokens", "visual_index", "positions", "branch"):
        assert row[name].shape == (length,)
    in_prompt = row["branch"] == PROMPT_BRANCH
    # The last token of the prompt, which predicts every answer's first, is at P - 1.
    assert np.flatnonzero(in_prompt).tolist() == list(
        range(shape.prompt_tokens - len(prompt.tokens), shape.prompt_tokens)
    )
    np.testing.assert_array_equal(row["tokens"][in_prompt], prompt.tokens)
    np.testing.assert_array_equal(row["visual_index"][in_prompt], prompt.visual_index)
    np.testing.assert_array_equal(row["positions"][in_prompt], np.arange(len(prompt.tokens)))
    assert (row["visual_index"][~in_prompt] == -1).all()
    for number, answer in enumerate(answers):
        start = shape.prompt_tokens + number * shape.answer_tokens
        mine = np.flatnonzero(row["branch"] == number + 1)
        assert mine.tolist() == list(range(start, start + len(answer)))
        assert row["tokens"][mine].tolist() == answer
        ends = len(prompt.tokens) + np.arange(len(answer))
        np.testing.assert_array_equal(row["positions"][mine], ends)
        assert row["answers"][number][row["answer_mask"][number] == 1].tolist() == answer
        # A target stands at the place of its token, so that place - 1 predicts it.
        block = row["tokens"][start : start + shape.answer_tokens]
        np.testing.assert_array_equal(block, row["answers"][number])
    padding = length - len(prompt.tokens) - sum(map(len, answers))
    assert (row["branch"] == PAD_BRANCH).sum() == padding
    assert row["answer_mask"].sum() == sum(map(len, answers))
    assert (row["positions"] >= 0).all()


@given(cases(), st.data())
def test_given_tokens_are_not_learned(
    case: tuple[Prompt, list[list[int]], RowShape], data: st.DataObject
) -> None:
    prompt, answers, shape = case
    first = [data.draw(st.integers(0, len(answer))) for answer in answers]
    plain = make_row(prompt, answers, shape)
    row = make_row(prompt, answers, shape, unsupervised=first)
    for number, answer in enumerate(answers):
        learned = np.flatnonzero(row["answer_mask"][number])
        assert learned.tolist() == list(range(first[number], len(answer)))
    for name in plain.keys() - {"answer_mask"}:
        np.testing.assert_array_equal(row[name], plain[name])


@given(cases(), st.integers(0, 9))
def test_a_wider_bucket_changes_padding_only(
    case: tuple[Prompt, list[list[int]], RowShape], more: int
) -> None:
    prompt, answers, shape = case
    wide = RowShape(
        prompt_tokens=shape.prompt_tokens + more,
        answer_tokens=shape.answer_tokens + more,
        prompt_targets=shape.prompt_targets + more,
    )
    rows = [make_row(prompt, answers, one) for one in (shape, wide)]
    seen = [row["branch"] != PAD_BRANCH for row in rows]
    for name in ("tokens", "visual_index", "positions", "branch"):
        np.testing.assert_array_equal(*(row[name][s] for row, s in zip(rows, seen, strict=True)))


@given(cases())
def test_the_prompt_alone_is_the_same_as_in_the_row(
    case: tuple[Prompt, list[list[int]], RowShape],
) -> None:
    prompt, answers, shape = case
    row = make_row(prompt, answers, shape)
    for name, values in prompt_row(prompt, shape.prompt_tokens).items():
        assert values.dtype == np.int32
        np.testing.assert_array_equal(row[name][: shape.prompt_tokens], values)


@given(st.lists(st.integers(1, 500), min_size=1), st.lists(st.integers(1, 90), min_size=1))
def test_the_fitting_shape_is_the_smallest_bucket(prompts: list[int], answers: list[int]) -> None:
    shape = fitting_shape(prompts, answers)
    assert shape.prompt_tokens % 32 == 0 and 0 <= shape.prompt_tokens - max(prompts) < 32
    assert shape.answer_tokens % 8 == 0 and 0 <= shape.answer_tokens - max(answers) < 8
    assert shape.prompt_targets == 0
    assert fitting_shape(prompts, answers, prompts) == replace(shape, prompt_targets=max(prompts))


@given(st.integers(1, 500), st.integers(1, 90), st.integers(1, 2), st.sampled_from([1, 8, 512]))
def test_a_row_is_a_multiple_and_no_longer_than_need_be(
    prompt: int, answer: int, answers: int, multiple: int
) -> None:
    least = fitting_shape([prompt], [answer])
    shape = fitting_shape([prompt], [answer], answers=answers, multiple=multiple)
    assert shape.answer_tokens == least.answer_tokens
    assert (shape.prompt_tokens + answers * shape.answer_tokens) % multiple == 0
    assert 0 <= shape.prompt_tokens - least.prompt_tokens < multiple


def test_round_up() -> None:
    assert [round_up(number, 8) for number in (0, 1, 7, 8, 9, 16)] == [0, 8, 8, 8, 16, 16]


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (RowShape(prompt_tokens=4, answer_tokens=3), "its prompt of 5 tokens .* the row's 4"),
        (RowShape(prompt_tokens=5, answer_tokens=2), "an answer of 3 tokens .* the row's 2"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(shape: RowShape, told: str) -> None:
    prompt = prompt_of([7], 2, [8, 9])
    with pytest.raises(InputError, match=f"^pair ab12: {told}$"):
        make_row(prompt, [[4], [1, 2, 3]], shape, name="pair ab12")


def test_an_exact_fit_has_no_padding() -> None:
    prompt = prompt_of([7], 2, [8, 9])
    row = make_row(prompt, [[4, 5], [6, 7]], RowShape(prompt_tokens=5, answer_tokens=2))
    assert row["branch"].tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2]


def test_rows_are_stacked_in_order() -> None:
    rows: list[dict[str, Any]] = [
        {"tokens": np.full(3, i, np.int32), "answers": np.full((2, 4), i, np.int32)}
        for i in range(2)
    ]
    batch = stack(rows)
    assert batch["tokens"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert batch["answers"].shape == (2, 2, 4) and batch["answers"].dtype == np.int32
