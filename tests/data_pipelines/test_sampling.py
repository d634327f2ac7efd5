"""Which frames are taken."""

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.sampling import FramePolicy, inside, outside, spread, uniform


def test_uniform_truncates_and_repeats() -> None:
    assert uniform(10, 4).tolist() == [0, 3, 6, 9]
    assert uniform(100, 8).tolist() == [0, 14, 28, 42, 56, 70, 84, 99]  # 84.857 becomes 84
    assert uniform(3, 5).tolist() == [0, 0, 1, 1, 2]
    assert uniform(7, 1).tolist() == [0]
    assert uniform(5, 2).dtype == np.int64
    for total, count in ((0, 1), (1, 0)):
        with pytest.raises(InputError):
            uniform(total, count)


@pytest.mark.parametrize("rate", [10, 24, 25, 30])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_fps_equals_llava_video_at_whole_rates(rate: int, extra: int) -> None:
    count = 40 * rate + extra
    policy = FramePolicy(kind="fps", fps=1.0, max_frames=64)
    assert policy.choose(np.arange(count) / rate).tolist() == list(range(0, count, rate))


def test_fps_beyond_the_limit_spreads_over_all_frames() -> None:
    policy = FramePolicy(kind="fps", fps=1.0, max_frames=64)
    times_F = np.arange(2428) / 25
    assert policy.choose(times_F).tolist() == np.linspace(0, 2427, 64, dtype=int).tolist()


def test_fps_follows_time_not_numbers() -> None:
    times_F = np.concatenate([np.arange(100) / 50, 2 + np.arange(20) / 4])  # 50 fps, then 4 fps
    chosen = FramePolicy(fps=2.0).choose(times_F)
    assert np.abs(times_F[chosen] - np.arange(len(chosen)) / 2).max() < 1e-9
    assert len(chosen) == 14


def test_fps_above_the_source_keeps_every_frame_once() -> None:
    times_F = np.arange(10) / 5
    assert FramePolicy(fps=30.0).choose(times_F).tolist() == list(range(10))
    for count in range(1, 300):  # however the last time was rounded
        times_F = np.arange(count) / 30
        assert len(FramePolicy(fps=30.0, max_frames=300).choose(times_F)) == count
    assert FramePolicy().choose(np.array([0.0])).tolist() == [0]


def test_uniform_policy_never_repeats() -> None:
    policy = FramePolicy(kind="uniform", max_frames=8)
    assert policy.choose(np.arange(100) / 25).tolist() == uniform(100, 8).tolist()
    assert policy.choose(np.arange(3) / 25).tolist() == [0, 1, 2]


def test_policy_refuses_nonsense() -> None:
    for wrong in ({"kind": "all"}, {"fps": 0.0}, {"fps": float("nan")}, {"max_frames": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            FramePolicy(**wrong)
    with pytest.raises(InputError, match="without frames"):
        FramePolicy().choose(np.array([]))


def test_inside_and_outside_split_the_video() -> None:
    times_F = np.arange(10) / 2
    assert inside(times_F, 1.0, 2.5).tolist() == [2, 3, 4]
    both = np.concatenate([inside(times_F, 1.0, 2.5), outside(times_F, 1.0, 2.5)])
    assert sorted(both.tolist()) == list(range(10))
    assert len(inside(times_F, 9.0, 10.0)) == 0


def test_spread_takes_of_the_given_numbers() -> None:
    assert spread([3, 5, 7, 11, 13], 3).tolist() == [3, 7, 13]
    assert spread([3, 5], 3).tolist() == [3, 5]
    assert spread([], 3).tolist() == []
    with pytest.raises(InputError):
        spread([1], 0)
