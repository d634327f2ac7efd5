"""Which frames each side is shown."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.curation.responses import (
    NegativeConfig,
    Scene,
    incomplete,
    irrelevant,
    make_sides,
    spread_or_empty,
)
from data_pipelines.errors import InputError

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


def scene(frames: int = 20, chosen: int = 16, segment: Any = None) -> Scene:
    times_F = np.arange(frames) / 2
    return Scene(times_F=times_F, segment=segment, chosen=np.arange(chosen), sparse=4)


@given(
    name=st.sampled_from(["incomplete", "drop", "shuffle", "reverse"]),
    chosen=st.integers(1, 20),
    runs=st.integers(2, 24),
    pick=st.sampled_from(["even", "random"]),
    ratio=st.none() | st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_negatives_are_other_frames_of_the_chosen_side(
    name: str, chosen: int, runs: int, pick: Any, ratio: float | None, seed: int
) -> None:
    config = NegativeConfig(runs=runs, sparse_pick=pick, sparse_ratio=ratio)
    sides = make_sides(name, scene(chosen=chosen), config, seed)
    if isinstance(sides, str):  # too few frames for another side
        assert chosen == 1 or (name == "incomplete" and ratio is None and chosen <= 4)
        return
    again = make_sides(name, scene(chosen=chosen), config, seed)
    assert not isinstance(again, str) and np.array_equal(sides.rejected, again.rejected)
    assert sides.negative == name and sides.made_with["seed"] == seed
    assert sides.chosen.tolist() == list(range(chosen)) != sides.rejected.tolist()
    assert len(set(sides.rejected.tolist())) == len(sides.rejected)
    if name in ("shuffle", "reverse"):
        assert sorted(sides.rejected.tolist()) == list(range(chosen))
    else:
        assert set(sides.rejected) < set(range(chosen))
        assert (np.diff(sides.rejected) > 0).all()
    if name == "drop":
        runs = min(runs, chosen)
        longest = -(-chosen // runs)
        assert len(sides.rejected) <= longest * ((runs + 1) // 2)
    if name == "incomplete":
        wanted = 4 if ratio is None else max(1, min(round(ratio * chosen), chosen - 1))
        assert len(sides.rejected) == sides.made_with["frames"] == wanted


def test_negatives_by_hand() -> None:
    config = NegativeConfig(runs=4)
    sides = make_sides("reverse", scene(chosen=8), config, 0)
    assert not isinstance(sides, str)
    assert sides.rejected.tolist() == [6, 7, 4, 5, 2, 3, 0, 1]
    sides = make_sides("drop", scene(chosen=8), config, 0)
    assert not isinstance(sides, str) and len(sides.rejected) == 4
    assert {number // 2 for number in sides.rejected.tolist()} == {
        number // 2 for number in sides.rejected[::2].tolist()
    }
    near = scene(segment=(4.0, 6.0))
    sides = make_sides(
        "irrelevant", Scene(**(vars(near) | {"chosen": np.arange(8, 12)})), config, 0
    )
    assert not isinstance(sides, str) and sides.made_with == {"seed": 0, "margin_seconds": 2.0}
    expected = irrelevant(TIMES, (4.0, 6.0), 4, 2.0)
    assert expected is not None and np.array_equal(sides.rejected, expected.rejected)
    assert "no frame away" in str(make_sides("irrelevant", scene(segment=(0.0, 10.0)), config, 0))


def test_negatives_are_drawn_by_their_shares() -> None:
    config = NegativeConfig(localized={"irrelevant": 1.0, "shuffle": 3.0, "drop": 0.0})
    rng = np.random.default_rng(0)
    drawn = [config.draw("localized", rng) for _ in range(4000)]
    assert abs(drawn.count("shuffle") / 4000 - 0.75) < 0.04 and "drop" not in drawn
    assert {config.draw("comprehensive", rng) for _ in range(50)} == {"incomplete"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"localized": {"blur": 1.0}}, r"localized\.blur: must be one of irrelevant, incomplete"),
        ({"localized": {"drop": -1.0}}, r"localized\.drop is -1\.0; must be 0 or more"),
        ({"comprehensive": {}}, "comprehensive: no negative has a share"),
        ({"comprehensive": {"irrelevant": 1.0}}, "no frames that it is not about"),
        ({"sparse_ratio": 1.0}, "sparse_ratio is 1.0; must be between 0 and 1"),
        ({"runs": 1}, "runs is 1; must be 2 or more"),
    ],
)
def test_mistakes_name_the_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        NegativeConfig(**changes)
