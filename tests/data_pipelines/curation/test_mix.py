"""The mix of localized and comprehensive pairs."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.artefacts import read_manifest
from data_pipelines.curation.config import CurateConfig
from data_pipelines.curation.pipeline import choose_mix
from data_pipelines.pairs import Pair, read_pairs
from tests.data_pipelines.curation.knowing_model import (
    CONFIG,
    World,
    read_dropped,
    run,
)


def candidates(localized: int, comprehensive: int) -> list[Pair]:
    return [
        Pair(
            id=str(number),
            video_id="ab",
            granularity="localized" if number < localized else "comprehensive",
            kind="",
            question="",
            chosen="",
            rejected="",
            negative="",
            chosen_frames=[],
            rejected_frames=[],
            segment=None,
            generator="",
            sampling={},
            judge="",
        )
        for number in range(localized + comprehensive)
    ]


@given(
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(0, 3),
)
def test_the_mix(localized: int, comprehensive: int, pairs: int, share: float, seed: int) -> None:
    given_pairs = candidates(localized, comprehensive)
    config = CurateConfig(pairs=pairs, localized_share=share, seed=seed)
    chosen, surplus = choose_mix(given_pairs, config)
    together = [pair.id for pair in (*chosen, *surplus)]
    assert sorted(together) == sorted(pair.id for pair in given_pairs)
    counts = Counter(pair.granularity for pair in chosen)
    room = round(pairs * share)
    assert counts["localized"] == min(localized, room)
    assert counts["comprehensive"] == min(comprehensive, pairs - room)
    assert choose_mix(given_pairs, config) == (chosen, surplus)


def test_the_mix_is_drawn_from_all_of_them() -> None:
    given_pairs = candidates(100, 100)
    mixes = [choose_mix(given_pairs, CurateConfig(pairs=20, seed=seed))[0] for seed in range(20)]
    assert {int(pair.id) // 20 for mix in mixes for pair in mix} == set(range(10))
    assert mixes[0] != mixes[1]


def test_the_surplus_is_dropped_by_name(world: World, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    run(world, out, config=replace(CONFIG, pairs=6, localized_share=0.5))
    manifest = read_manifest(out, "pairs")
    assert manifest["mix"] == {"localized": 3, "comprehensive": 3}
    whole = read_manifest(undisturbed, "pairs")
    assert manifest["dropped"]["mix"] == whole["pairs"] - 6
    assert manifest["candidates"] == whole["candidates"]
    surplus = [entry for entry in read_dropped(out) if entry["filter"] == "mix"]
    assert len(surplus) == whole["pairs"] - 6 and all(entry["chosen"] for entry in surplus)


@pytest.mark.parametrize(("share", "only"), [(0.0, "comprehensive"), (1.0, "localized")])
def test_what_has_no_share_is_not_asked(
    world: World, tmp_path: Path, share: float, only: str
) -> None:
    out = tmp_path / "pairs"
    run(world, out, config=replace(CONFIG, localized_share=share))
    assert {pair.granularity for pair in read_pairs(out / "pairs.jsonl")} == {only}
    assert {entry["granularity"] for entry in read_dropped(out)} <= {only}
