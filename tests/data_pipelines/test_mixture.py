"""Several files of pairs as one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.mixture import Source, read_mixture
from data_pipelines.pairs import write_pairs
from tests.data_pipelines.test_pairs import PAIR


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name in "ab":
        pairs = [replace(PAIR, id=f"{name}{number}") for number in range(10)]
        write_pairs(tmp_path / f"{name}.jsonl", pairs)
    return tmp_path / "a.jsonl", tmp_path / "b.jsonl"


def ids(*sources: str, seed: int = 0) -> list[str]:
    mixture = read_mixture(sources, seed=seed)
    return [mixture.pairs[number].id for number in mixture.numbers]


def test_all_first_and_weights(files: tuple[Path, Path]) -> None:
    a, b = files
    assert ids(f"{a}") == [f"a{n}" for n in range(10)]
    assert ids(f"{a}:first:2*2", f"{b}:first:10%") == ["a0", "a1", "a0", "a1", "b0"]
    found = ids(f"{a}*2.5")
    times = np.unique(found, return_counts=True)[1]
    assert sorted(times.tolist()) == [2] * 5 + [3] * 5


def test_random_is_seeded_and_without_repetition(files: tuple[Path, Path]) -> None:
    a, b = files
    found = ids(f"{a}:random:6", f"{b}:random:30%")
    assert found == ids(f"{a}:random:6", f"{b}:random:30%") and len(set(found)) == 9
    others = {tuple(ids(f"{a}:random:6", seed=seed)) for seed in range(5)}
    assert len(others) > 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (":first:11", "has 10 pairs, not 11"),
        (":first:0", "counts and weights are above 0"),
        (":random:1.5", "counts and weights are above 0"),
        ("*0", "counts and weights are above 0"),
        (":random:1.2.3", "write PATH"),
    ],
)
def test_what_cannot_be_taken(files: tuple[Path, Path], more: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_mixture([f"{files[0]}{more}"], seed=0)


def test_a_pair_twice_is_named(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"the pair 'a0' is in .*a.jsonl too"):
        read_mixture([str(files[0]), f"{files[0]}:first:1"], seed=0)


def test_a_colon_in_a_path() -> None:
    assert Source.parse("gs:x/y:first:3*2").path == Path("gs:x/y")
