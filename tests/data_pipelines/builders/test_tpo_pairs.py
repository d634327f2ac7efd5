"""The TFDS data set: every field comes back, in order, with TFDS alone and without TensorFlow."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from data_pipelines.builders.tpo_pairs.tpo_pairs import TpoPairs, as_pair, build
from data_pipelines.errors import InputError
from data_pipelines.pairs import Pair, write_pairs
from tests.data_pipelines.test_pairs import PAIR

PAIRS = [
    PAIR,
    replace(PAIR, id="1", rejected=None, segment=None, chosen_frames=[], judge_said={}),
    replace(PAIR, id="2", question="Grün,\u2028绿色?", licence="unknown", segment=[0.1, 2 / 3]),
    *(replace(PAIR, id=f"n{number}", round=number) for number in range(20)),
]
READ = """
import sys
import tensorflow_datasets as tfds
records = tfds.data_source("tpo_pairs", data_dir=sys.argv[1], split="train")
print(len(records), records[2]["question"].decode() == "Gr\\u00fcn,\\u2028\\u7eff\\u8272?")
print(sorted(name for name in sys.modules if name in ("tensorflow", "jax", "data_pipelines")))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tfds")
    write_pairs(root / "pairs.jsonl", PAIRS)
    assert build(root / "pairs.jsonl", root / "data") == root / "data" / "tpo_pairs" / "1.1.0"
    return root


def test_every_pair_comes_back_in_order(built: Path) -> None:
    records = tfds.data_source("tpo_pairs", data_dir=built / "data", split="train")
    pairs: list[Pair] = [as_pair(record) for record in records]
    assert pairs == PAIRS
    assert [bool(record["has_rejected"]) for record in records] == [
        p.rejected is not None for p in PAIRS
    ]


def test_tfds_alone_reads_it(built: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", READ, str(built / "data")],
        capture_output=True,
        text=True,
        cwd=built,
    )
    assert ran.stdout.split("\n")[:2] == [f"{len(PAIRS)} True", "[]"], ran.stderr


def test_the_card_stands_beside_it(built: Path) -> None:
    folder = built / "data" / "tpo_pairs" / "1.1.0"
    card = (folder / "README.md").read_text()
    assert "| pairs | 23 |" in card and "| CC0 | 22 |" in card and "licence (1)" in card
    assert [one.name for one in (built / "data").iterdir()] == ["tpo_pairs"]


def test_building_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1.1.0: exists already"):
        build(built / "pairs.jsonl", built / "data")
    with pytest.raises(InputError, match="not found"):
        build(tmp_path / "none.jsonl", tmp_path / "data")
    with pytest.raises(InputError, match="TpoPairs"):
        TpoPairs(data_dir=tmp_path / "data").download_and_prepare()
