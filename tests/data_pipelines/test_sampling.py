"""Which frames are taken."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


# ------------------------------------------------------------------------- the authors' loaders

RATES = [Fraction(rate) for rate in (1, 2, 5, 8, 10, 12, 15, 24, 25, 30, 50, 60, 120)]
RATES += [Fraction(1000 * rate, 1001) for rate in (24, 30, 60)]  # 23.976, 29.97, 59.94
RATES += [Fraction(1, 2), Fraction(5, 2), Fraction(15, 2), Fraction(25, 2), Fraction(997, 41)]


def authors_loader(
    count: int, rate: Fraction, fps: float, most: int, force: bool
) -> tuple[list[int], list[float], float]:
    """LLaVA-Video's rule told once more, with an exact rate: frames, told times, duration."""
    step = round(rate / Fraction(fps))  # a half goes to the even number
    taken = [number for number in range(count) if number % max(step, 1) == 0]
    times = [Fraction(number, max(step, 1)) for number in taken]
    if len(taken) > most or force:
        # numpy.linspace in so many words: its float steps may fall short of a whole number.
        gap = (count - 1) / (most - 1) if most > 1 else 0.0
        taken = [int(place * gap) for place in range(most - 1)] + [count - 1 if most > 1 else 0]
        times = [number / rate for number in taken]
    return taken, [float(time) for time in times], float(count / rate)


@given(
    st.one_of(st.integers(1, 40), st.integers(1, 5000)),
    st.sampled_from(RATES),
    st.sampled_from([0.5, 1.0, 2.0, 3.0, 30.0]),
    st.one_of(st.integers(1, 8), st.sampled_from([32, 64, 128])),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_frames_times_and_duration_are_the_authors(
    count: int, rate: Fraction, fps: float, most: int, force: bool
) -> None:
    frames, times, duration = authors_loader(count, rate, fps, most, force)
    kinds = ["uniform", "force_sample"] if force else ["fps"]
    for kind in kinds:
        policy = FramePolicy(kind=kind, fps=fps, max_frames=most)  # type: ignore[arg-type]
        # The rate as `read_index` computes it, which may be a rounding error off.
        sample = policy.sample(count, count / float(count / rate))
        assert sample.numbers_F.dtype == np.int64 and sample.times_F.dtype == np.float64
        assert sample.numbers_F.tolist() == frames
        assert sample.times_F.tolist() == pytest.approx(times, rel=1e-12)
        assert sample.duration == pytest.approx(duration, rel=1e-12)
        chosen = policy.choose(count, float(rate))
        assert chosen.tolist() == sorted(set(frames)) and chosen.dtype == np.int64


def test_known_cases() -> None:
    one = FramePolicy(kind="fps", fps=1.0, max_frames=64)
    # 29.97 frames a second: every 30th, told as whole seconds though they lie a little later.
    sample = one.sample(300, 30000 / 1001)
    assert sample.numbers_F.tolist() == list(range(0, 300, 30))
    assert sample.times_F.tolist() == list(range(10))
    assert sample.duration == pytest.approx(10.01)
    # 64 s are 64 frames; one frame more and they are spread, and told by the exact rate.
    assert one.choose(64 * 25, 25.0).tolist() == list(range(0, 64 * 25, 25))
    sample = one.sample(64 * 25 + 1, 25.0)
    assert sample.numbers_F.tolist() == np.linspace(0, 1600, 64, dtype=int).tolist()
    assert sample.times_F[:2].tolist() == [0.0, 1.0] and sample.times_F[-1] == 64.0
    # Python rounds halves to even: 12.5 frames a second give every 12th.
    assert one.choose(30, 12.5).tolist() == [0, 12, 24]
    assert one.choose(30, np.nextafter(12.5, 13)).tolist() == [0, 12, 24]
    # Slower than asked for: all frames.
    assert one.choose(3, 0.4).tolist() == [0, 1, 2]
    # At other rates the authors' time counts frames, not seconds.
    assert FramePolicy(fps=2.0).sample(40, 10.0).times_F.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    # Too few frames: they repeat. A single picture has no rate.
    few = FramePolicy(kind="force_sample", max_frames=5).sample(3, 10.0)
    assert few.numbers_F.tolist() == [0, 0, 1, 1, 2] and few.times_F.tolist() == [
        0,
        0,
        0.1,
        0.1,
        0.2,
    ]
    for kind in ("fps", "uniform"):
        still = FramePolicy(kind=kind, max_frames=2).sample(1, 0.0)
        assert set(still.times_F.tolist()) == {0.0} and still.duration == 0.0


def test_any_frames_have_reference_times() -> None:
    spread, every = FramePolicy(kind="uniform", max_frames=4), FramePolicy(fps=1.0, max_frames=9)
    assert spread.reference_times([3, 1, 1], 100, 12.5).tolist() == [3 / 12.5, 1 / 12.5, 1 / 12.5]
    assert every.reference_times([3, 24], 100, 12.5).tolist() == [0.25, 2.0]
    # As many as 109 frames would be ten of every 12th: they are spread, so it is the exact rate.
    assert every.reference_times([3, 24], 109, 12.5).tolist() == [3 / 12.5, 24 / 12.5]


def test_policy_refuses_nonsense() -> None:
    for wrong in ({"kind": "all"}, {"fps": 0.0}, {"fps": float("nan")}, {"max_frames": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            FramePolicy(**wrong)
    with pytest.raises(InputError, match="without frames"):
        FramePolicy().choose(0, 25.0)


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
