"""The file of pairs: what is written is read back, and a damaged line is named."""

import json
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.pairs import Pair, read_pairs, train_frames, write_pairs

PAIR = Pair(
    id="0f",
    video_id="ab",
    granularity="localized",
    kind="colour",
    question="What colour are the stars?",
    chosen="The stars are red.",
    rejected="The stars are blue.",
    negative="irrelevant",
    chosen_frames=[3, 4],
    rejected_frames=[0, 9],
    segment=[1.5, 3.25],
    generator="demo@12",
    sampling={"temperature": 0.0},
    judge="rules",
    judge_said={"chosen_right": True},
    round=2,
    source="drawn",
    licence="CC0",
)
NEEDED = [f.name for f in fields(Pair) if f.default is MISSING and f.default_factory is MISSING]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def write_lines(path: Path, *entries: Any) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in asdict(PAIR).items() if key != name}


# The same folder for every example is what overwriting is tested with.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT), max_size=3))
def test_pairs_are_read_back(tmp_path: Path, texts: list[tuple[str, str]]) -> None:
    pairs = [
        replace(PAIR, id=str(number), question=question, chosen=chosen, segment=None)
        for number, (question, chosen) in enumerate(texts)
    ]
    write_pairs(tmp_path / "pairs.jsonl", [PAIR, *pairs])
    assert read_pairs(tmp_path / "pairs.jsonl") == [PAIR, *pairs]


def test_a_pair_may_have_no_rejected_answer(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    plain = replace(PAIR, rejected=None)
    write_pairs(path, [plain])
    assert '"rejected": null' in path.read_text()
    assert read_pairs(path) == [plain]


def test_text_of_any_language_stays_readable(tmp_path: Path) -> None:
    # The second has characters that end a line for some readers, but not in JSON lines.
    for text in ("Welche Farbe? Grün, 绿色", "a\u2028b\u0085c\x0cd\re\nf"):
        pair = replace(PAIR, chosen=text)
        write_pairs(tmp_path / "pairs.jsonl", [pair, replace(pair, id="10")])
        data = (tmp_path / "pairs.jsonl").read_bytes()
        assert data.count(b"\n") == 2 and data.endswith(b"\n")
        assert [one.chosen for one in read_pairs(tmp_path / "pairs.jsonl")] == [text, text]
    assert "绿色" not in data.decode()
    write_pairs(tmp_path / "pairs.jsonl", [replace(PAIR, chosen="绿色")])
    assert "绿色" in (tmp_path / "pairs.jsonl").read_text(encoding="utf-8")


def test_fields_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_lines(path, {name: asdict(PAIR)[name] for name in NEEDED})
    (pair,) = read_pairs(path)
    told = (pair.judge_said, pair.round, pair.source, pair.licence)
    assert told == ({}, 0, "unknown", "unknown")


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_field_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "pairs.jsonl"
    write_lines(path, asdict(PAIR), without(name))
    with pytest.raises(InputError, match=f"pairs.jsonl:2: the pair has no field '{name}'"):
        read_pairs(path)


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_lines(path, asdict(PAIR) | {"score": 1})
    with pytest.raises(InputError, match=r"pairs.jsonl:1: .* unknown field 'score'"):
        read_pairs(path)


@pytest.mark.parametrize("line", ['{"id": ', "", "3", "null", "[]", '"id"'])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    good = json.dumps(asdict(PAIR))
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(InputError, match="pairs.jsonl:2: "):
        read_pairs(path)


def test_two_pairs_of_one_id_are_refused(tmp_path: Path) -> None:
    # The reference table is joined by id: the second would be trained with the first's log-probs.
    path = tmp_path / "pairs.jsonl"
    write_lines(path, asdict(PAIR), asdict(PAIR) | {"id": "10"}, asdict(PAIR) | {"round": 3})
    with pytest.raises(InputError, match="pairs.jsonl:3: .*'0f'.* line 1"):
        read_pairs(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pairs.jsonl: not found; `tpo curate`"):
        read_pairs(tmp_path / "pairs.jsonl")
    (tmp_path / "pairs.jsonl").touch()
    with pytest.raises(InputError, match="pairs.jsonl: is empty"):
        read_pairs(tmp_path / "pairs.jsonl")


def test_training_frames_span_the_whole_video() -> None:
    assert train_frames(100, 4).tolist() == [0, 33, 66, 99]
    assert train_frames(3, 5).tolist() == [0, 0, 1, 1, 2]
