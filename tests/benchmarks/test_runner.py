"""The runner asks each video once, survives being killed anywhere, and sums up right."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.runner import Record, read_records, run_task, summarise
from benchmarks.tasks.item import Item
from data_pipelines.answering import Answer, Request
from data_pipelines.errors import InputError


def item(video: str, kind: str, answer: str, chance: float | None = 0.5) -> Item:
    return Item(
        id=f"{video}/{kind}",
        video=video,
        granularity="localized" if kind == "shape" else "comprehensive",
        kind=kind,
        question=f"{kind}?",
        answer=answer,
        chance=chance,
    )


# Not sorted by video: the records must come back in this order all the same.
ITEMS = [
    item("a.mp4", "shape", "ring"),
    item("b.mp4", "shape", "cross"),
    item("a.mp4", "first", "red"),
    item("c.mp4", "shape", "ring"),
    item("b.mp4", "first", "white"),
]


def said(text: str) -> Answer:
    return Answer(text=text, tokens=1, logprob=0.0, finished=True)


class Model:
    """Says "ring" to everything, and can be told to die at its n-th call."""

    def __init__(self, name: str = "base", dies_at: int | None = None, said: str = "Ring.\u2028"):
        self.name = name
        self.calls: list[tuple[str, list[str]]] = []
        self._dies_at = dies_at
        self._said = said

    def answer(self, video_id: str, requests: Sequence[Request]) -> list[Answer]:
        if len(self.calls) == self._dies_at:
            raise KeyboardInterrupt
        self.calls.append((video_id, [request.question for request in requests]))
        return [said(self._said) for _ in requests]


def frames_of(item: Item) -> tuple[str, np.ndarray]:
    return f"id-{item.video}", np.arange(4)


def test_a_video_is_asked_in_one_call(tmp_path: Path) -> None:
    model, seen = Model(), []
    path = tmp_path / "new" / "answers.jsonl"
    records = run_task(ITEMS, model, frames_of, path, lambda *done: seen.append(done))
    assert model.calls == [
        ("id-a.mp4", ["shape?", "first?"]),
        ("id-b.mp4", ["shape?", "first?"]),
        ("id-c.mp4", ["shape?"]),
    ]
    assert [record.item for record in records] == [one.id for one in ITEMS]
    assert [record.correct for record in records] == [True, False, False, True, False]
    assert {record.model for record in records} == {"base"}
    assert seen == [(1, 3, "a.mp4"), (2, 3, "b.mp4"), (3, 3, "c.mp4")]
    line = json.loads(path.read_text(encoding="utf-8").split("\n")[0])
    assert line | {"asked": ""} == {
        "item": "a.mp4/shape",
        "model": "base",
        "said": "Ring.\u2028",
        "correct": True,
        "asked": "",
    }


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = run_task(ITEMS, Model(), frames_of, path)
    content, again = path.read_bytes(), Model()
    assert run_task(ITEMS, again, frames_of, path) == first
    assert again.calls == [] and path.read_bytes() == content


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    whole = run_task(ITEMS, Model(), frames_of, tmp_path / "whole.jsonl")
    path = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_task(ITEMS, Model(dies_at=2), frames_of, path)
    again = Model()
    assert run_task(ITEMS, again, frames_of, path) == whole
    assert [video for video, _ in again.calls] == ["id-c.mp4"]


def test_cut_off_at_any_byte_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    whole = run_task(ITEMS, Model(), frames_of, path)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        again = Model()
        assert run_task(ITEMS, again, frames_of, path) == whole
        # What was kept is kept, and every line is whole.
        assert path.read_bytes().startswith(content[: content[:length].rfind(b"\n") + 1])
        assert {record.item for record in read_records(path)} == {one.id for one in ITEMS}
        # A video with all its lines is not asked again, one with a part of them is.
        lines = content[:length].count(b"\n")
        assert len(again.calls) == 3 - (lines >= 2) - (lines >= 4) - (lines >= 5)


def test_what_another_host_recorded_is_not_asked_again(tmp_path: Path) -> None:
    ours, theirs = Model(), Model()
    alone = run_task(ITEMS, Model(), frames_of, tmp_path / "alone.jsonl")
    mine = [one for one in ITEMS if one.video == "b.mp4"]
    run_task(mine, theirs, frames_of, tmp_path / "theirs.jsonl")
    recorded = [tmp_path / "theirs.jsonl", tmp_path / "not_there.jsonl"]
    records = run_task(ITEMS, ours, frames_of, tmp_path / "ours.jsonl", recorded=recorded)
    assert [video for video, _ in ours.calls] == ["id-a.mp4", "id-c.mp4"]
    assert records == alone
    assert {one.item[:5] for one in read_records(tmp_path / "ours.jsonl")} == {"a.mp4", "c.mp4"}


def test_models_share_a_record(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    base = run_task(ITEMS, Model("base"), frames_of, path)
    tpo = run_task(ITEMS, Model("tpo", said="white"), frames_of, path)
    assert [record.said for record in tpo] == ["white"] * 5
    assert run_task(ITEMS, Model("base", dies_at=0), frames_of, path) == base
    assert len(read_records(path)) == 10


@pytest.mark.parametrize("what", ["question", "answer", "video", "frames"])
def test_answers_to_something_else_are_not_taken(tmp_path: Path, what: str) -> None:
    path = tmp_path / "answers.jsonl"
    run_task(ITEMS[:1], Model(), frames_of, path)
    question = "Which shape?" if what == "question" else ITEMS[0].question
    answer = "cross" if what == "answer" else ITEMS[0].answer
    one = Item(**{**vars(ITEMS[0]), "question": question, "answer": answer})
    shown = ("id-z" if what == "video" else "id-a.mp4", np.arange(5 if what == "frames" else 4))
    again = Model()
    (record,) = run_task([one], again, lambda _: shown, path)
    assert len(again.calls) == 1 and record.correct == (what != "answer")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    run_task(ITEMS, Model(), frames_of, path)
    path.write_bytes(path.read_bytes().replace(b'{"item": "b.mp4/shape"', b'{"b.mp4/shape"'))
    with pytest.raises(InputError, match=r"answers\.jsonl: line 3 is damaged"):
        run_task(ITEMS, Model(), frames_of, path)


def test_a_model_that_leaves_answers_out_is_found(tmp_path: Path) -> None:
    class Short(Model):
        def answer(self, video_id: str, requests: Sequence[Request]) -> list[Answer]:
            return [said("ring")]

    with pytest.raises(ValueError, match="shorter"):
        run_task(ITEMS, Short(), frames_of, tmp_path / "answers.jsonl")
    assert read_records(tmp_path / "answers.jsonl") == []


def records_of(model: str, correct: Sequence[bool]) -> list[Record]:
    return [
        Record(item=one.id, model=model, said="", correct=right, asked="")
        for one, right in zip(ITEMS, correct, strict=True)
    ]


def test_the_sum_is_right() -> None:
    base = records_of("base-1f", [True, False, False, True, False])
    tpo = records_of("tpo-9a", [True, True, False, True, True])
    found = summarise(ITEMS, {"base": base, "tpo": tpo})
    assert (found["items"], found["videos"]) == (5, 3)
    assert found["models"] == {"base": "base-1f", "tpo": "tpo-9a"}
    assert found["groups"] == {
        "all": 5,
        "localized": 3,
        "comprehensive": 2,
        "shape": 3,
        "first": 2,
    }
    assert list(found["groups"]) == ["all", "localized", "comprehensive", "shape", "first"]
    assert found["chance"] == dict.fromkeys(found["groups"], 0.5)
    accuracy = found["accuracy"]
    assert accuracy["base"]["all"]["correct"] == 2
    assert accuracy["base"]["all"]["value"] == pytest.approx(0.4)
    assert accuracy["tpo"]["first"]["value"] == pytest.approx(0.5)
    assert accuracy["base"]["all"]["low"] <= 0.4 <= accuracy["base"]["all"]["high"]
    assert set(found["difference"]) == {"tpo"}
    difference = found["difference"]["tpo"]
    assert {group: round(told["value"], 3) for group, told in difference.items()} == {
        "all": 0.4,
        "localized": 0.333,
        "comprehensive": 0.5,
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_kind_without_a_chance_level_has_none() -> None:
    items = [*ITEMS[:4], item("b.mp4", "first", "white", chance=None)]
    found = summarise(items, {"base": records_of("base", [True] * 5)})
    assert set(found["chance"]) == {"localized", "shape"}
    assert found["difference"] == {}


def test_records_of_other_items_are_refused() -> None:
    records = records_of("base", [True] * 5)
    with pytest.raises(InputError, match="'base'"):
        summarise(ITEMS, {"base": records[::-1]})
    with pytest.raises(InputError, match="'tpo'"):
        summarise(ITEMS, {"base": records, "tpo": records[:-1]})
