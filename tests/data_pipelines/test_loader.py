"""From pairs and frames to batches: each pair once an epoch, and any step on its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_pipelines.batch_plan import BatchPlan, plan_batches
from data_pipelines.batches import stack
from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.loader import PairRows, load_batches
from data_pipelines.pairs import Pair
from data_pipelines.prompts import PromptPolicy, end_token, time_instruction
from data_pipelines.sampling import FramePolicy
from data_pipelines.video import video_id

Make = Callable[..., Path]
Read = Callable[[np.ndarray], int]
FIRST = {"a": 0, "b": 1000, "c": 2000}  # the stamp of each video's first frame
COUNT = {"a": 40, "b": 12, "c": 3}
FRAMES = 5
VISUAL = 15


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_video: Make) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {
        name: make_video(folder / f"{name}.mp4", count=COUNT[name], fps=10, first=FIRST[name])
        for name in FIRST
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, videos: dict[str, Path]) -> FrameStore:
    out = tmp_path_factory.mktemp("store") / "frames"
    policies = FramePolicy(fps=100.0), ImagePolicy(size=32)
    build_store(list(videos.values()), out, frame_policy=policies[0], image_policy=policies[1])
    return FrameStore.open(out)


@pytest.fixture(scope="module")
def pairs(videos: dict[str, Path]) -> list[Pair]:
    """Seven pairs; the longest question and the longest answer belong to different ones."""
    one = Pair(
        id="",
        video_id="",
        granularity="localized",
        kind="colour",
        question="What colour are the stars?",
        chosen="The stars are red.",
        rejected="Blue.",
        negative="irrelevant",
        chosen_frames=[1, 2],
        rejected_frames=[0],
        segment=[0.1, 0.3],
        generator="g",
        sampling={},
        judge="rules",
    )
    return [
        replace(
            one,
            id=f"pair{number}",
            video_id=video_id(videos["abc"[number % 3]]),
            question="What comes right after the crosses? " * (1 + number % 4),
            rejected="The moons move left. " * (1 + number % 3),
        )
        for number in range(7)
    ]


def make_rows(
    pairs: list[Pair],
    store: FrameStore,
    tokenizer: Tokenizer,
    timed: bool = False,
    answers: Literal[1, 2] = 2,
    **policy: Any,
) -> PairRows:
    return PairRows(
        pairs,
        store,
        tokenizer,
        frames=FRAMES,
        visual_tokens=VISUAL,
        prompts=PromptPolicy(time_instruction=timed, **policy),
        answers=answers,
    )


@pytest.fixture(scope="module")
def rows(pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer) -> PairRows:
    return make_rows(pairs, store, tokenizer)


def plan_of(*numbers: list[int], bucket: int = 0) -> BatchPlan:
    """A plan of these batches."""
    buckets = np.full(len(numbers), bucket)
    return BatchPlan(numbers_SB=np.array(numbers), buckets_S=buckets)


def make_plan(rows: PairRows, **settings: int) -> BatchPlan:
    return plan_batches(range(len(rows.pairs)), rows.buckets, **settings)


# --------------------------------------------------------------------------------------- the rows


def test_a_row_says_what_the_pair_says(
    rows: PairRows, pairs: list[Pair], tokenizer: Tokenizer
) -> None:
    end = end_token(tokenizer)
    for number, pair in enumerate(pairs):
        row = rows.row(number)
        texts = row["tokens"][(row["branch"] == 0) & (row["visual_index"] < 0)]
        assert f"\n{pair.question}" in tokenizer.decode(texts.tolist())
        shown = row["visual_index"][row["visual_index"] >= 0]
        assert shown.tolist() == list(range(VISUAL))
        for branch, text in ((1, pair.chosen), (2, pair.rejected)):
            tokens = row["answers"][branch - 1][row["answer_mask"][branch - 1] > 0].tolist()
            assert tokens[-1] == end
            assert tokenizer.decode(tokens[:-1]) == text
            assert row["tokens"][row["branch"] == branch].tolist() == tokens


def test_all_rows_share_the_smallest_bucket(rows: PairRows, pairs: list[Pair]) -> None:
    made = [rows.row(number) for number in range(len(pairs))]
    prompts = max(int((row["branch"] == 0).sum()) for row in made)
    answers = max(int(row["answer_mask"].sum(axis=1).max()) for row in made)
    assert 0 <= rows.shapes[0].prompt_tokens - prompts < 32
    assert 0 <= rows.shapes[0].answer_tokens - answers < 8
    length = rows.shapes[0].prompt_tokens + 2 * rows.shapes[0].answer_tokens
    assert {row["tokens"].shape for row in made} == {(length,)}


def test_training_frames_are_uniform_over_the_whole_video(
    rows: PairRows, pairs: list[Pair], videos: dict[str, Path], read_stamp: Read
) -> None:
    names = {video_id(path): name for name, path in videos.items()}
    expected = {"a": [0, 9, 19, 29, 39], "b": [0, 2, 5, 8, 11], "c": [0, 0, 1, 1, 2]}
    for number, pair in enumerate(pairs):
        name = names[pair.video_id]
        (frames,) = rows.frames([number])
        assert frames.shape == (FRAMES, 32, 32, 3) and frames.dtype == np.uint8
        assert [read_stamp(frame) - FIRST[name] for frame in frames] == expected[name]


def test_training_frames_do_not_depend_on_what_the_answers_were_made_from(
    pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer
) -> None:
    pair = pairs[0]
    other = replace(pair, chosen_frames=[30, 31], rejected_frames=[5], segment=[3.0, 3.2])
    swapped = replace(pair, chosen_frames=[0], rejected_frames=[1, 2], segment=None)
    rows = make_rows([pair, other, swapped], store, tokenizer, timed=True)
    first = rows.row(0)
    for number in (1, 2):
        for name, values in rows.row(number).items():
            np.testing.assert_array_equal(values, first[name], err_msg=name)
    # One set of frames a row, and one prompt: both answers and the reference see the same.
    frames = rows.frames([0, 1, 2])
    assert frames.ndim == 5 and (first["branch"] == 0).any()
    np.testing.assert_array_equal(frames, frames[:1].repeat(3, axis=0))


def test_the_time_instruction_tells_the_training_frames(
    pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer
) -> None:
    row = make_rows(pairs, store, tokenizer, timed=True).row(0)
    text = tokenizer.decode(row["tokens"][(row["branch"] == 0) & (row["visual_index"] < 0)])
    assert time_instruction(4.0, [0.0, 0.9, 1.9, 2.9, 3.9]) in text


def test_reference_times_follow_the_stores_policy(
    pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer, videos: Any, tmp_path: Path
) -> None:
    def text(store: FrameStore) -> str:
        rows = make_rows(pairs, store, tokenizer, timed=True, frame_times="reference")
        row = rows.row(0)
        return tokenizer.decode(row["tokens"][(row["branch"] == 0) & (row["visual_index"] < 0)])

    # This store took every frame, so the authors' rule divides by a step of 1.
    assert time_instruction(4.0, [0.0, 9.0, 19.0, 29.0, 39.0]) in text(store)
    policies = FramePolicy(kind="uniform", max_frames=40), ImagePolicy(size=32)
    out = tmp_path / "frames"
    build_store(list(videos.values()), out, frame_policy=policies[0], image_policy=policies[1])
    assert time_instruction(4.0, [0.0, 0.9, 1.9, 2.9, 3.9]) in text(FrameStore.open(out))


def test_chatml_labels_add_targets_and_change_nothing_else(
    rows: PairRows, pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer
) -> None:
    chatml = make_rows(pairs, store, tokenizer, labels="chatml")
    assert rows.shapes[0].prompt_targets == 0 and chatml.shapes[0].prompt_targets == 6
    newline = tokenizer.encode("\n", add_special_tokens=False).ids
    for number in range(len(pairs)):
        plain, row = rows.row(number), chatml.row(number)
        learned = tokenizer.decode(row["prompt_targets"].tolist(), skip_special_tokens=False)
        assert learned == "<|im_end|>\n<|im_start|><|im_end|>\n<|im_start|>"
        assert row["prompt_mask"].tolist() == [1] * 6 and plain["prompt_mask"].tolist() == []
        tokens, branch = ([one[key] for one in (plain, row)] for key in ("tokens", "branch"))
        assert tokens[1][branch[1] == 0].tolist() == tokens[0][branch[0] == 0].tolist()
        for answer in (1, 2):
            said, longer = (
                one["answers"][answer - 1][one["answer_mask"][answer - 1] > 0].tolist()
                for one in (plain, row)
            )
            assert said[-1] == end_token(tokenizer) and longer == said + newline
            assert tokens[1][branch[1] == answer].tolist() == longer


def test_a_pair_without_its_video_is_refused(
    pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer
) -> None:
    stray = replace(pairs[1], id="stray", video_id="0" * 16)
    with pytest.raises(InputError, match="pair stray: its video 0000000000000000 is not in"):
        make_rows([pairs[0], stray], store, tokenizer)


def test_rows_of_one_answer_hold_the_chosen_one_alone(
    rows: PairRows, pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer
) -> None:
    # The rejected answers are the longest: without them the row is shorter than one of two.
    plain = [replace(pair, rejected=None) for pair in pairs[:3]]
    one = make_rows([*plain, *pairs[3:]], store, tokenizer, answers=1)
    assert one.shapes[0].prompt_tokens == rows.shapes[0].prompt_tokens
    assert one.shapes[0].answer_tokens < rows.shapes[0].answer_tokens
    for number, pair in enumerate(pairs):
        row, both = one.row(number), rows.row(number)
        assert row["answers"].shape == row["answer_mask"].shape == (1, one.shapes[0].answer_tokens)
        tokens = row["answers"][0][row["answer_mask"][0] > 0].tolist()
        assert tokenizer.decode(tokens[:-1]) == pair.chosen
        assert tokens[-1] == end_token(tokenizer)
        assert set(row["branch"].tolist()) <= {-1, 0, 1}
        assert row["tokens"][row["branch"] == 1].tolist() == tokens
        of_prompt = [r["tokens"][r["branch"] == 0].tolist() for r in (row, both)]
        assert of_prompt[0] == of_prompt[1]
    batch = next(load_batches(one, plan_of([0, 4])))
    assert batch["answers"].shape == (2, 1, one.shapes[0].answer_tokens)


def test_a_pair_without_a_rejected_answer_is_refused_where_it_is_needed(
    pairs: list[Pair], store: FrameStore, tokenizer: Tokenizer
) -> None:
    plain = replace(pairs[1], id="plain", rejected=None)
    with pytest.raises(InputError, match=r"pair plain: .*config\.loss\.dpo_weight=0 trains on"):
        make_rows([pairs[0], plain], store, tokenizer)
    make_rows([replace(pairs[1], rejected="")], store, tokenizer)  # empty is not missing


# ------------------------------------------------------------------------------------ the batches


def as_lists(batches: list[dict[str, np.ndarray]]) -> list[dict[str, list]]:
    return [{name: values.tolist() for name, values in batch.items()} for batch in batches]


def test_batches_are_the_rows_of_the_plan(rows: PairRows, pairs: list[Pair]) -> None:
    plan = make_plan(rows, steps=5, batch=3, seed=4)
    batches = list(load_batches(rows, plan))
    assert len(batches) == 5
    for numbers, batch in zip(plan.numbers_SB, batches, strict=True):
        expected = stack([rows.row(int(number)) for number in numbers])
        expected["frames"] = np.concatenate([rows.frames([int(number)]) for number in numbers])
        assert batch.keys() == expected.keys()
        for name in expected:
            assert batch[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(batch[name], expected[name])


def test_starting_at_a_step_gives_the_rest_of_the_run(rows: PairRows, pairs: list[Pair]) -> None:
    plan = make_plan(rows, steps=6, batch=2, seed=4)
    reference = {pair.id: np.full((2, 8), n, np.float32) for n, pair in enumerate(pairs)}
    whole = as_lists(list(load_batches(rows, plan, reference=reference, threads=4)))
    assert len(whole) == 6
    for start in range(7):
        rest = load_batches(rows, plan, start=start, reference=reference, threads=1 + start % 3)
        assert as_lists(list(rest)) == whole[start:]


def test_the_reference_is_joined_by_id(rows: PairRows, pairs: list[Pair]) -> None:
    table = {
        pair.id: np.array([[number, 0.5], [-number, 0.25]], np.float32)
        for number, pair in enumerate(pairs)
    }
    table["another"] = np.ones((2, 2), np.float32)
    table = {name: table[name] for name in sorted(table, reverse=True)}
    plan = make_plan(rows, steps=4, batch=3, seed=2)
    for numbers, batch in zip(
        plan.numbers_SB, load_batches(rows, plan, reference=table), strict=True
    ):
        told = batch["reference_logprobs"]
        # Behind the table's answers there is room for those of a longer row.
        length = rows.shapes[0].answer_tokens
        assert told.shape == (3, 2, length) and told.dtype == np.float32
        assert not told[:, :, 2:].any()
        assert told[:, 0, 0].tolist() == numbers.tolist()
        assert told[:, 1, 0].tolist() == (-numbers).tolist()
    assert "reference_logprobs" not in next(load_batches(rows, plan))


def test_a_damaged_store_stops_the_run_with_its_own_error(
    videos: dict[str, Path], pairs: list[Pair], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    policies = FramePolicy(fps=100.0), ImagePolicy(size=32)
    out = tmp_path / "frames"
    build_store(list(videos.values()), out, frame_policy=policies[0], image_policy=policies[1])
    rows = make_rows(pairs, FrameStore.open(out), tokenizer)
    for shard in out.glob("*array_record*"):
        shard.unlink()
    with pytest.raises(InputError, match="missing or damaged"):
        list(load_batches(rows, make_plan(rows, steps=2, batch=2, seed=0)))
