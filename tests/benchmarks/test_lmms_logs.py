"""Logs of lmms-eval: the forms that its versions write, and what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lmms_logs import read_log
from benchmarks.tasks.item import Item
from data_pipelines.errors import InputError

ITEMS = [
    Item(id=f"q{number}", video="a.mp4", question=f"What is  shown {number}?", answer="B")
    for number in range(3)
]


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def line(number: int, **more: Any) -> dict[str, Any]:
    prompt = f"Select.\nWhat is shown {number}?\nA. ring"
    return {"doc_id": number, "target": "B", "filtered_resps": "A", "input": prompt} | more


@pytest.mark.parametrize("said", ["A", ["A"], [["A"]]])
def test_answers_in_every_form(tmp_path: Path, said: Any) -> None:
    log = write(tmp_path / "log.jsonl", line(2, filtered_resps=said), line(0, filtered_resps=said))
    found = read_log(log, ITEMS)
    assert [(item.id, answer.said) for item, answer, _ in found] == [("q0", "A"), ("q2", "A")]
    assert found[0][2].startswith("Select.")


def test_a_log_without_prompts_is_known_by_its_answers(tmp_path: Path) -> None:
    old = {"doc_id": 1, "target": "B", "resps": [["C"]]}
    (found,) = read_log(write(tmp_path / "log.jsonl", old), ITEMS)
    assert found[0].id == "q1" and found[1].said == "C"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "holds no sample"),
        (["text"], "line 1: has no doc_id"),
        ([{"question": 1}], "line 1: has no doc_id"),
        ([line(0), line(3)], "line 2: doc_id 3, but the task's data has 3 rows"),
        ([line(1), line(1)], "line 2: doc_id 1 stands twice"),
        ([line(0), line(1) | {"doc_id": 2}], "line 2: doc_id 2 is another question than 'q2'"),
        ([{"doc_id": 0, "target": "C", "resps": "A"}], "line 1: doc_id 0 is another question"),
        ([line(0, filtered_resps=["A", "B"])], "line 1: filtered_resps is"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, lines: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_log(write(tmp_path / "log.jsonl", *lines), ITEMS)


def test_a_log_that_is_cut_off_or_missing_is_named(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", line(0))
    log.write_bytes(log.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"log\.jsonl: its last line is cut off"):
        read_log(log, ITEMS)
    with pytest.raises(InputError, match="no such file"):
        read_log(tmp_path / "none.jsonl", ITEMS)
