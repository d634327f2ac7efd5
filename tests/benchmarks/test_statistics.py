"""Bootstrap intervals against values known in advance and against laws they must obey."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.statistics import Interval, accuracy_interval, paired_difference
from data_pipelines.errors import InputError

OUTCOMES = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from("abcdefgh")), min_size=1, max_size=40
)


def test_two_videos_give_the_three_values_that_can_be_drawn() -> None:
    # Both draws fall on the wrong video in a quarter of the samples, on the right one in another.
    found = accuracy_interval([False, True], ["a", "b"])
    assert found == Interval(value=0.5, low=0.0, high=1.0)


def test_single_questions_give_the_normal_interval() -> None:
    correct = np.arange(1000) % 10 < 3
    found = accuracy_interval(correct, [str(i) for i in range(1000)], samples=20_000)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.002)


def test_questions_that_follow_their_video_add_nothing() -> None:
    rng = np.random.default_rng(0)
    of_video = rng.random(50) < 0.6
    videos = [f"{i:02d}" for i in range(50)]
    once = accuracy_interval(of_video, videos)
    assert accuracy_interval(np.repeat(of_video, 7), np.repeat(videos, 7).tolist()) == once
    # Taken for 350 videos they would seem to add a lot.
    wrong = accuracy_interval(np.repeat(of_video, 7), [str(i) for i in range(350)])
    assert wrong.high - wrong.low < 0.5 * (once.high - once.low)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    videos = np.repeat(np.arange(60), 5).astype(str).tolist()
    covered = 0
    for _ in range(300):
        ease = np.repeat(rng.beta(2, 2, size=60), 5)  # 0.5 on average
        found = accuracy_interval(rng.random(300) < ease, videos, samples=500)
        covered += found.low <= 0.5 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_pairing_narrows_the_difference() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.5
    new = base | (rng.random(400) < 0.1)
    videos = [str(i // 4) for i in range(400)]
    found = paired_difference(base, new, videos)
    assert found.value == pytest.approx(new.mean() - base.mean())
    assert 0 < found.low < found.value < found.high
    alone = accuracy_interval(base, videos)
    assert found.high - found.low < 0.6 * (alone.high - alone.low)


def test_equal_answers_differ_by_nothing() -> None:
    same = [True, False, True]
    found = paired_difference(same, same, ["a", "b", "c"])
    assert found == Interval(value=0.0, low=0.0, high=0.0)


def test_one_video_says_nothing_about_others() -> None:
    assert accuracy_interval([True, True], ["a", "a"]) == Interval(value=1.0, low=0.0, high=1.0)
    found = paired_difference([True, False], [True, True], ["a", "a"])
    assert found == Interval(value=0.5, low=-1.0, high=1.0)


@settings(max_examples=40, deadline=None)
@given(OUTCOMES, st.randoms(use_true_random=False))
def test_laws(outcomes: list[tuple[bool, bool, str]], random) -> None:
    def found(rows: list[tuple[bool, bool, str]]) -> Interval:
        base, new, videos = zip(*rows, strict=True)
        return paired_difference(base, new, videos, samples=200)

    one = found(outcomes)
    assert -1 <= one.low <= one.high <= 1
    assert found(outcomes) == one
    swapped = found([(new, base, video) for base, new, video in outcomes])
    assert [-swapped.value, -swapped.high, -swapped.low] == pytest.approx(
        [one.value, one.low, one.high]
    )
    shuffled = random.sample(outcomes, len(outcomes))
    assert found(shuffled) == one


@pytest.mark.parametrize(
    ("base", "new", "videos"), [([], [], []), ([True], [True], []), ([True], [True, False], ["a"])]
)
def test_what_does_not_fit_is_refused(base: list[bool], new: list[bool], videos: list[str]) -> None:
    with pytest.raises(InputError):
        paired_difference(base, new, videos)
