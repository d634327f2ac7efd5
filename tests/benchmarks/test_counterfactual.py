"""What is left to see of a video."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.counterfactual import VIEWS, can_be_asked, positions_seen, segment_positions
from benchmarks.tasks.item import Item

TIMES = np.arange(20) / 2


def item(granularity: Any = "localized", segment: Any = (4.0, 6.0)) -> Item:
    return Item(
        id="a/ceiling/red",
        video="a",
        granularity=granularity,
        kind="ceiling",
        question="What?",
        answer="The ceiling is blue.",
        segment=segment,
    )


def test_by_hand() -> None:
    shown = np.array([0, 4, 8, 11, 12, 19])
    assert positions_seen(item(), "removed", shown, TIMES, 0).tolist() == [0, 4, 12, 19]
    assert positions_seen(item(), "blind", shown, TIMES, 0).tolist() == []


@given(st.lists(st.integers(0, 19), unique=True, min_size=2).map(sorted), st.integers(0, 9))
def test_another_order_has_the_same_frames(shown: list[int], seed: int) -> None:
    seen = positions_seen(item(), "shuffled", np.array(shown), TIMES, seed)
    assert sorted(seen.tolist()) == shown != seen.tolist()
    assert np.array_equal(seen, positions_seen(item(), "shuffled", np.array(shown), TIMES, seed))


@pytest.mark.parametrize(
    ("segment", "most", "positions"),
    [
        ((4.0, 6.0), 12, [8, 9, 10, 11]),  # all there are; the end belongs to what follows
        ((4.0, 6.0), 4, [8, 9, 10, 11]),
        ((4.0, 6.0), 2, [8, 11]),
        ((4.0, 6.0), 1, [8]),
        ((0.0, 10.0), 3, [0, 9, 19]),
        ((9.3, 99.0), 12, [19]),
    ],
)
def test_the_segment_alone(segment: tuple[float, float], most: int, positions: list[int]) -> None:
    found = segment_positions(item(segment=segment), TIMES, most)
    assert found.tolist() == positions
    assert segment_positions(item(segment=segment), TIMES.tolist(), most).tolist() == positions
    # What is taken away and what is shown alone are the two parts of the video.
    rest = positions_seen(item(segment=segment), "removed", np.arange(20), TIMES, 0)
    assert not set(rest) & set(positions)


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        (item(), {"removed", "blind"}),
        (item(segment=None), {"blind"}),
        (item("comprehensive", None), {"shuffled", "blind"}),
    ],
)
def test_only_what_needs_it_is_asked(made: Item, asked: set[str]) -> None:
    assert {view for view in VIEWS if can_be_asked(made, view)} == asked
