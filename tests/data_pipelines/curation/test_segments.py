"""Segments: equal, without a gap, about as long as asked for."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.curation.segments import shot_segments, uniform_segments
from data_pipelines.sampling import inside


@pytest.mark.parametrize(
    ("duration", "ends"),
    [
        (24.0, [8.0, 16.0, 24.0]),
        (20.0, [10.0, 20.0]),
        (20.5, [20.5 / 3, 20.5 * 2 / 3, 20.5]),
        (3.0, [3.0]),
        (0.0, [0.0]),
    ],
)
def test_segments_by_hand(duration: float, ends: list[float]) -> None:
    segments = uniform_segments(duration, 8.0)
    assert [end for _, end in segments] == pytest.approx(ends)
    assert [start for start, _ in segments] == pytest.approx([0.0, *ends[:-1]])


@given(st.integers(1, 2000), st.sampled_from([1.0, 2.0, 7.3, 29.97]), st.floats(0.5, 60))
def test_every_frame_is_in_one_segment(frames: int, fps: float, seconds: float) -> None:
    times_F = np.arange(frames) / fps
    duration = frames / fps
    segments = uniform_segments(duration, seconds)
    positions = np.concatenate([inside(times_F, start, end) for start, end in segments])
    assert positions.tolist() == list(range(frames))
    lengths = [end - start for start, end in segments]
    assert max(lengths) - min(lengths) < 1e-9
    assert math.isclose(segments[-1][1], duration)
    if duration >= seconds / 2:
        assert 0.5 * seconds - 1e-9 <= lengths[0] <= 1.5 * seconds + 1e-9
    else:
        assert len(segments) == 1


def test_shots_begin_where_the_picture_changes() -> None:
    times_F = np.arange(60) * 0.5  # 30 s
    changes_F = np.zeros(60)
    changes_F[[10, 11, 40, 59]] = 0.5  # 5.0, 5.5 (too soon after), 20.0, 29.5 (too near the end)
    found = shot_segments(times_F, changes_F, 30.0, 6.0, 0.15)
    assert found[0] == (0.0, 5.0) and found[-1][1] == 30.0
    assert {start for start, _ in found} >= {0.0, 5.0, 20.0}
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    assert all(3.0 <= end - start <= 9.0 for start, end in found)


def test_without_a_change_shots_are_uniform() -> None:
    times_F = np.arange(60) * 0.5
    assert shot_segments(times_F, np.zeros(60), 30.0, 6.0, 0.15) == uniform_segments(30.0, 6.0)
