"""Bootstrap intervals against values known in advance and against laws they must obey."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.statistics import (
    Interval,
    accuracy_interval,
    crossed_interval,
    paired_difference,
)
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


# ------------------------------------------------------------------------------ seeds and videos

VIDEOS = [str(number // 3) for number in range(90)]


def seeds_of(*shares: float, agree: bool = False) -> np.ndarray:
    """Right answers of models, each right about such a share of 90 items; float [seeds, 90]."""
    rng = np.random.default_rng(4)
    ease = rng.random(90)
    return np.array(
        [(ease if agree else rng.random(90)) < share for share in shares], dtype=np.float64
    )


def width(found: Interval) -> float:
    return found.high - found.low


def test_one_seed_is_an_accuracy_like_any_other() -> None:
    (row,) = seeds_of(0.6)
    assert crossed_interval(row[None], VIDEOS) == accuracy_interval(row > 0, VIDEOS)
    other = seeds_of(0.4)[0]
    found = crossed_interval((row - other)[None], VIDEOS, whole_range=(-1.0, 1.0))
    assert found == paired_difference(other > 0, row > 0, VIDEOS)


def test_seeds_that_all_say_the_same_add_nothing() -> None:
    (row,) = seeds_of(0.6)
    once, often = crossed_interval(row[None], VIDEOS), crossed_interval(np.stack([row] * 5), VIDEOS)
    assert [often.value, often.low, often.high] == pytest.approx([once.value, once.low, once.high])


def test_seeds_that_disagree_widen_it() -> None:
    alike, apart = seeds_of(0.5, 0.5, 0.5, agree=True), seeds_of(0.2, 0.5, 0.8, agree=True)
    one, other = crossed_interval(alike, VIDEOS), crossed_interval(apart, VIDEOS)
    assert one.value == pytest.approx(other.value, abs=0.05)
    assert width(other) > 1.5 * width(one)
    # Also where all videos alike are won or lost, and videos alone would leave no doubt.
    certain = np.repeat([[0.0], [1.0]], 90, axis=1)
    found = crossed_interval(certain, VIDEOS)
    assert (found.low, found.value, found.high) == (0.0, 0.5, 1.0)


def test_videos_that_differ_widen_it_however_many_seeds() -> None:
    of_video = np.repeat(np.arange(30) % 2, 3).astype(float)
    many = np.stack([of_video] * 20)
    assert width(crossed_interval(many, VIDEOS)) > 0.3
    assert width(crossed_interval(many, [str(number) for number in range(90)])) < 0.25


def test_every_draw_of_seeds_and_videos_by_hand() -> None:
    rng = np.random.default_rng(1)
    values, videos = rng.random((3, 6)), list("abbccc")
    sums = np.stack([values[:, [video == name for video in videos]].sum(axis=1) for name in "abc"])
    means = Counter[float]()
    for seeds in product(range(3), repeat=3):
        for drawn in product(range(3), repeat=3):
            total = sum(sums[video, seed] for video in drawn for seed in seeds)
            means[float(total / sum(3 * (1, 2, 3)[video] for video in drawn))] += 1
    assert means.total() == 27 * 27
    low, high = np.percentile(list(means.elements()), [2.5, 97.5])
    found = crossed_interval(values, videos, samples=40_000)
    assert found.value == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.01)


def test_a_bootstrap_seed_gives_one_interval() -> None:
    values = seeds_of(0.3, 0.6)
    assert crossed_interval(values, VIDEOS) == crossed_interval(values.copy(), list(VIDEOS))
    assert crossed_interval(values, VIDEOS, seed=1) != crossed_interval(values, VIDEOS)
    assert crossed_interval(values[::-1], VIDEOS).value == crossed_interval(values, VIDEOS).value
    # A seed names no video: another order of the items is the same set of them.
    order = np.random.default_rng(0).permutation(90)
    shuffled = crossed_interval(values[:, order], [VIDEOS[place] for place in order])
    assert shuffled == crossed_interval(values, VIDEOS)


def test_several_seeds_on_one_video_say_nothing_about_others() -> None:
    found = crossed_interval(np.array([[1.0, 0.0], [1.0, 1.0]]), ["a", "a"])
    assert found == Interval(value=0.75, low=0.0, high=1.0)
    found = crossed_interval(np.zeros((2, 2)), ["a", "a"], whole_range=(-1.0, 1.0))
    assert found == Interval(value=0.0, low=-1.0, high=1.0)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(("items", "videos"), [(0, []), (2, ["a"]), (1, ["a", "b"])])
def test_crossed_values_that_do_not_fit_are_refused(
    seeds: int, items: int, videos: list[str]
) -> None:
    with pytest.raises(InputError):
        crossed_interval(np.zeros((seeds, items)), videos)
