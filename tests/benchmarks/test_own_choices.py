"""One's own multiple-choice file: from lines to scores, and what is wrong with a line."""

import json
from pathlib import Path

import pytest

from benchmarks.protocols import VideoFacts, find_protocol
from benchmarks.tasks.own_choices import TASK
from benchmarks.tasks.registry import find_task
from benchmarks.tasks.task import score_all
from data_pipelines.errors import InputError

FACTS = VideoFacts(frames=300, fps=30.0, duration=10.0)
ROW = {
    "id": "q1",
    "video": "clip.mp4",
    "question": "What comes first?",
    "options": ["a ring", "a star", "a cross"],
    "answer": "B",
}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_from_a_file_to_a_score(tmp_path: Path) -> None:
    more = ROW | {"id": "q2", "groups": {"kind": "order"}, "segment": [3, 9.5], "answer": "C"}
    protocol = find_protocol("best", "own", "llava_video")
    items = find_task("own").read(write(tmp_path / "own.jsonl", ROW, more))
    assert TASK.prompt(items[0], protocol, FACTS) == (
        "What comes first?\nA. a ring\nB. a star\nC. a cross\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (items[1].segment, items[1].granularity, items[1].chance) == (
        (3, 9.5),
        "localized",
        1 / 3,
    )
    scored = score_all(TASK, items, ["B.", "(B)"], protocol)
    assert [one.predicted for one in scored] == ["B", "B"]
    told = TASK.summarise(items, scored, protocol)
    assert told["value"] == 50
    assert told["groups"] == {"kind": {"order": {"items": 1, "correct": 0, "value": 0}}}


@pytest.mark.parametrize(("count", "found"), [(4, ""), (6, "F")])
def test_the_old_rule_is_not_used_where_it_knows_too_few_letters(
    tmp_path: Path, count: int, found: str
) -> None:
    options = [str(number) for number in range(count)]
    items = TASK.read(write(tmp_path / "own.jsonl", ROW | {"options": options}))
    paper = find_protocol("tpo-paper", "own", "longva")
    assert score_all(TASK, items, ["F"], paper)[0].predicted == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "D"}, "row 1: answer 'D'; must be one of A, B, C"),
        ({"answer": "AB"}, "row 1: answer 'AB'"),
        ({"options": ["a"]}, "row 1: 1 options; must be 2 to 8"),
        ({"options": "a b"}, "row 1, column 'options' is 'a b'; it must be list"),
        ({"segment": [9, 3]}, r"row 1: segment \[9, 3\]"),
        ({"groups": "x"}, "row 1: groups must be an object"),
        ({"anwser": "A"}, "row 1: 'anwser' is not known"),
    ],
)
def test_what_is_wrong_with_a_line(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}/own.jsonl: {message}"):
        TASK.read(write(tmp_path / "own.jsonl", ROW | change))


def test_an_id_stands_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 2: id 'q1' stands twice"):
        TASK.read(write(tmp_path / "own.jsonl", ROW, ROW))
