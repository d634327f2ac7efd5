"""Which frames each side is shown."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.curation.responses import incomplete, irrelevant, spread_or_empty

TIMES = np.arange(20) / 2  # a frame every half second, to 9.5 s


def test_irrelevant_by_hand() -> None:
    sides = irrelevant(TIMES, (4.0, 6.0), 3, 2.0)
    assert sides is not None and sides.negative == "irrelevant"
    assert sides.chosen.tolist() == [8, 9, 11]  # 4.0, 4.5 and 5.5 s
    assert sides.rejected.tolist() == [0, 3, 19]  # not 2.0 to 7.5 s


@given(st.data())
def test_the_two_sides_are_apart(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.floats(0.04, 3), min_size=1, max_size=40))
    times_F = np.concatenate([[0.0], np.cumsum(gaps)])
    start = data.draw(st.floats(0, float(times_F[-1])))
    end = start + data.draw(st.floats(0.1, 10))
    frames = data.draw(st.integers(1, 12))
    margin = data.draw(st.floats(0, 8))
    inner = [i for i, time in enumerate(times_F) if start <= time < end]
    outer = [i for i, t in enumerate(times_F) if t < start - margin or t >= end + margin]
    sides = irrelevant(times_F, (start, end), frames, margin)
    if not inner or not outer:
        assert sides is None
        return
    assert sides is not None
    assert len(sides.chosen) == min(frames, len(inner)) and set(sides.chosen) <= set(inner)
    assert len(sides.rejected) == min(frames, len(outer)) and set(sides.rejected) <= set(outer)
    assert not set(sides.chosen) & set(sides.rejected)
    for positions in (sides.chosen, sides.rejected):
        assert (np.diff(positions) > 0).all()
    if frames > 1:  # from end to end of what there is
        assert {inner[0], inner[-1]} <= set(sides.chosen.tolist())
        assert {outer[0], outer[-1]} <= set(sides.rejected.tolist())


@pytest.mark.parametrize(
    ("segment", "margin"),
    [((0.0, 10.0), 0.0), ((3.0, 6.0), 4.0), ((4.1, 4.4), 1.0), ((20.0, 24.0), 4.0)],
)
def test_none_when_a_side_has_no_frame(segment: tuple[float, float], margin: float) -> None:
    assert irrelevant(TIMES, segment, 8, margin) is None


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 64))
def test_incomplete_shows_a_few_of_the_same_frames(stored: int, dense: int, sparse: int) -> None:
    sides = incomplete(stored, dense, sparse)
    assert sides.negative == "incomplete"
    assert len(sides.chosen) == min(dense, stored)
    assert len(sides.rejected) == min(sparse, dense, stored)
    assert set(sides.rejected) <= set(sides.chosen) <= set(range(stored))
    for positions in (sides.chosen, sides.rejected):
        assert (np.diff(positions) > 0).all() and positions[0] == 0
        if len(positions) > 1:
            assert positions[-1] == stored - 1


def test_spread_or_empty() -> None:
    empty: Any = np.array([], np.int64)
    assert spread_or_empty(empty, 3).tolist() == []
    assert spread_or_empty(np.arange(10, 20), 3).tolist() == [10, 14, 19]
