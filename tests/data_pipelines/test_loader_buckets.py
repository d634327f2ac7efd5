"""Rows of several shapes, hosts that load their part, processes, and pairs that are dropped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_pipelines.batch_plan import BatchPlan, plan_batches
from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.loader import PairRows, load_batches
from data_pipelines.pairs import Pair
from data_pipelines.prompts import PromptPolicy
from data_pipelines.sampling import FramePolicy
from tests.data_pipelines.test_pairs import PAIR

BATCH = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> FrameStore:
    folder = tmp_path_factory.mktemp("videos")
    video = make_video(folder / "a.mp4", count=20)
    build_store(
        [video],
        folder / "store",
        frame_policy=FramePolicy(fps=100.0),
        image_policy=ImagePolicy(size=32),
    )
    return FrameStore.open(folder / "store")


@pytest.fixture(scope="module")
def pairs(store: FrameStore) -> list[Pair]:
    """Thirteen: answers of three lengths, unevenly many."""
    lengths = [1, 1, 5, 1, 1, 5, 1, 16, 1, 1, 5, 1, 1]
    return [
        replace(
            PAIR,
            id=f"pair{number}",
            video_id=store.videos[0],
            question="What comes after the crosses?",
            chosen="Blue thing below red. " * length,
            rejected="Blue.",
        )
        for number, length in enumerate(lengths)
    ]


def make_rows(
    pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer, **settings: Any
) -> PairRows:
    policy = PromptPolicy(time_instruction=False)
    return PairRows(pairs, store, tokenizer, frames=3, visual_tokens=9, prompts=policy, **settings)


@pytest.fixture(scope="module")
def rows(pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer) -> PairRows:
    return make_rows(pairs, store, tokenizer, answer_buckets=(16, 64))


def make_plan(rows: PairRows, steps: int = 6) -> BatchPlan:
    return plan_batches(range(len(rows.pairs)), rows.buckets, steps=steps, batch=BATCH, seed=3)


def equal(batches: list[dict[str, np.ndarray]], others: list[dict[str, np.ndarray]]) -> bool:
    return len(batches) == len(others) and all(
        one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)
        for one, two in zip(batches, others, strict=True)
    )


def test_short_answers_have_short_rows(
    rows: PairRows, pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer
) -> None:
    assert len(rows.shapes) == 3
    lengths = [shape.answer_tokens for shape in rows.shapes]
    assert lengths == sorted(set(lengths)) and lengths[0] <= 16
    one_shape = make_rows(pairs, store, tokenizer)
    assert one_shape.shapes == (rows.shapes[-1],)
    for number in range(len(pairs)):
        short, long = rows.row(number), one_shape.row(number)
        for key in ("answers", "answer_mask"):
            kept = short[key].shape[1]
            np.testing.assert_array_equal(short[key], long[key][:, :kept])
            assert not long[key][:, kept:].any()
        supervised = short["answer_mask"].sum()
        assert supervised == long["answer_mask"].sum() > 0


def test_all_rows_of_a_step_have_one_shape(rows: PairRows) -> None:
    plan = make_plan(rows)
    shapes = set()
    for bucket, batch in zip(plan.buckets_S, load_batches(rows, plan), strict=True):
        assert batch["answers"].shape[-1] == rows.shapes[bucket].answer_tokens
        shapes.add(batch["tokens"].shape)
    assert len(shapes) > 1


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_together_see_the_batches_of_one(rows: PairRows, hosts: int) -> None:
    plan = make_plan(rows)
    whole = list(load_batches(rows, plan))
    parts = [
        list(load_batches(rows, plan, places=places))
        for places in np.split(np.arange(BATCH), hosts)
    ]
    joined = [
        {key: np.concatenate([host[key] for host in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert equal(joined, whole)


def test_every_step_can_be_the_first_after_a_stop(rows: PairRows) -> None:
    plan = make_plan(rows)
    whole = list(load_batches(rows, plan))
    for start in range(len(plan) + 1):
        assert equal(list(load_batches(rows, plan, start=start)), whole[start:])


def test_going_on_reads_nothing_of_what_is_done(
    rows: PairRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(rows, steps=500)
    read: list[int] = []
    row = rows.row

    def note(number: int, bucket: int | None = None) -> dict[str, np.ndarray]:
        read.append(number)
        return row(number, bucket)

    monkeypatch.setattr(rows, "row", note)
    next(load_batches(rows, plan, start=498))
    assert set(read) <= set(plan.numbers_SB[498:].reshape(-1).tolist())


def test_processes_load_what_threads_load(rows: PairRows) -> None:
    plan = make_plan(rows, steps=5)
    assert equal(list(load_batches(rows, plan, workers=2)), list(load_batches(rows, plan)))


def test_padding_is_counted(rows: PairRows) -> None:
    plan = make_plan(rows)
    told = rows.padding(plan)
    batches = list(load_batches(rows, plan))
    assert sum(one["steps"] for one in told) == len(plan)
    assert sum(one["tokens"] for one in told) == sum(batch["tokens"].size for batch in batches)
    padding = sum(int((batch["branch"] < 0).sum()) for batch in batches)
    assert sum(one["padding"] for one in told) == padding > 0


def test_pairs_that_teach_nothing_are_dropped(
    pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer
) -> None:
    same = replace(pairs[1], id="same", rejected=pairs[1].chosen)
    rows = make_rows([same, *pairs], store, tokenizer)
    assert rows.dropped == [("same", "chosen and rejected are the same tokens")]
    assert [pair.id for pair in rows.pairs] == [pair.id for pair in pairs]
    # One answer is learned as it is.
    assert make_rows([same], store, tokenizer, answers=1).dropped == []
    with pytest.raises(InputError, match="none of 1 pairs can be trained; the first, same: chosen"):
        make_rows([same], store, tokenizer)


def test_no_prompt_is_ever_cut(pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer) -> None:
    longest = make_rows(pairs, store, tokenizer)
    prompt = int((longest.row(0)["branch"] == 0).sum())
    answer = int((longest.row(7)["branch"] == 1).sum())
    rows = make_rows(pairs, store, tokenizer, max_tokens=prompt + answer)
    assert rows.dropped == []
    rows = make_rows(pairs, store, tokenizer, max_tokens=prompt + answer - 1)
    assert rows.dropped == [("pair7", f"{prompt + answer} tokens with its answer")]
    with pytest.raises(InputError, match=f"pair pair0: its prompt of {prompt} tokens would be cut"):
        make_rows(pairs, store, tokenizer, max_tokens=prompt)
