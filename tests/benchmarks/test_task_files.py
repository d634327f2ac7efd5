"""Published files of every task are read, and what is wrong with one is told in one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.protocols import VideoFacts, find_protocol
from benchmarks.tasks.registry import TASKS, find_task
from benchmarks.tasks.task import count_warning, frames_shown, score_all
from benchmarks.tasks.video_match import match_videos
from data_pipelines.errors import InputError
from tests.benchmarks.made_tasks import write_json, write_task

FACTS = VideoFacts(frames=900, fps=30.0, duration=30.0)
VIDEOS = ("a", "b", "c")
ITEMS = {  # of three videos with two questions each
    "video_mme_long": 2,  # durations in turn
    "video_mme_long_subtitles": 2,
    "demo": 3 * 8,
    "mvbench": 20 * 6,
    "nextgqa": 2 * 6,
    "tempcompass": 3 * 6,
    "videohallucer": 5 * 2 * 6,
}


@pytest.mark.parametrize("name", TASKS)
def test_from_files_to_scores(tmp_path: Path, name: str) -> None:
    task = find_task(name)
    items = task.read(write_task(tmp_path / name, name, VIDEOS))
    assert len(items) == ITEMS.get(name, 6)
    assert len({item.id for item in items}) == len(items)
    there = [f"somewhere/{video}.mkv" for video in VIDEOS]
    assert set(match_videos(items, there, "videos/").values()) <= set(there)
    protocol = replace(find_protocol("tpo-paper", name, "llava_video"), frames=8)
    for item in items:
        text = task.prompt(item, protocol, FACTS)
        assert item.question in text and all(option in text for option in item.options)
        shown = frames_shown(task, item, protocol, FACTS)
        assert text.count("<image>") == (len(shown) if task.interleaved else 0)
        assert shown == sorted(shown) and shown[0] >= 0 and shown[-1] < 900
    # Right answers make a full score, in the words in which the task has them.
    right = [
        f"{item.segment[0]} - {item.segment[1]}"
        if item.kind == "ground" and item.segment
        else item.answer
        for item in items
    ]
    scored = score_all(task, items, right, protocol)
    told = task.summarise(items, scored, protocol)
    assert json.loads(json.dumps(told)) == told
    assert told["value"] == told["metrics"][told["metric"]]
    if name != "nextgqa":  # a question's spans may lie apart, and one told covers the gap as well
        assert all(one.correct for one in scored)
        assert told["value"] == (100 if task.percent else 1)
        assert told["unparsed"] == 0
    for names in told["groups"].values():
        assert sum(group["items"] for group in names.values()) == len(items)
    nothing = "" if name == "demo" else "?"  # there any text is an answer
    wrong = task.summarise(
        items, score_all(task, items, [nothing] * len(items), protocol), protocol
    )
    assert wrong["unparsed"] == 1 and wrong["value"] < told["value"]


def test_a_part_of_a_benchmark_is_shouted_about(tmp_path: Path) -> None:
    items = find_task("mlvu").read(write_task(tmp_path, "mlvu", VIDEOS))
    assert "6 items, the benchmark has 2174" in (count_warning(find_task("mlvu"), items) or "")
    assert count_warning(find_task("own"), items) is None


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(InputError, match="'videomme': not known; did you mean 'video_mme'"):
        find_task("videomme")


# -------------------------------------------------------------------------- what may be wrong


def table(folder: Path) -> Path:
    (found,) = folder.rglob("*.parquet")
    return found


def cut(folder: Path) -> None:
    path = table(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(**columns: Any) -> Callable[[Path], None]:
    """Gives columns another value in every row; takes away those with None."""

    def apply(folder: Path) -> None:
        rows = parquet.read_table(table(folder)).to_pylist()
        for row in rows:
            row |= columns
        kept = [{k: v for k, v in row.items() if v is not None} for row in rows]
        parquet.write_table(pa.Table.from_pylist(kept), table(folder))

    return apply


def renamed(folder: Path) -> None:
    rows = parquet.read_table(table(folder)).to_pylist()
    parquet.write_table(
        pa.Table.from_pylist(
            [{k.replace("question", "questions"): v for k, v in r.items()} for r in rows]
        ),
        table(folder),
    )


def remove(*names: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return apply


def write(name: str, text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(text, "utf-8")

    return apply


def second_table(folder: Path) -> None:
    (table(folder).parent / "test-00001-of-00002.parquet").write_bytes(b"")


def no_subtitles(folder: Path) -> None:
    (folder / "subtitle").rename(folder / "elsewhere")


SUBTITLE = "subtitles/b_en.json"
WRONG: list[tuple[str, Callable[[Path], None], str]] = [
    ("video_mme", cut, r"test-00000-of-00001.parquet: is no whole parquet file: .*fetch it again$"),
    ("video_mme", renamed, r"row 1 has no column 'question_id' \(there is 'questions_id'\)"),
    ("video_mme", change(videoID=None), r"row 1 has no column 'videoID'"),
    ("video_mme", change(options="A. x"), r"row 1, column 'options' is 'A. x'; it must be list$"),
    ("video_mme", change(answer="E"), r"row 1 has 4 options and the answer 'E'"),
    ("video_mme", remove("videomme/test-00000-of-00001.parquet"), r"no file of Video-MME here"),
    ("video_mme", second_table, r"several files fit Video-MME \(test-00000.*\); name the one"),
    (
        "video_mme_subtitles",
        no_subtitles,
        r"/subtitle: no such folder; unpack .*subtitle.zip there",
    ),
    (
        "video_mme_subtitles",
        remove("subtitle/b.srt", "subtitle/c.srt"),
        r"/subtitle: has no subtitles of any of the 3 videos",
    ),
    ("longvideobench_val_v", cut, r"is no whole parquet file"),
    ("longvideobench_val_v", change(option3=None), r"row 1 has no column 'option3'"),
    ("longvideobench_val_v", change(correct_choice=5), r"row 1: correct_choice 5 is none of its"),
    (
        "longvideobench_val_v",
        change(correct_choice=1.0),
        r"'correct_choice' is 1.0; it must be int$",
    ),
    ("longvideobench_val_i", remove(SUBTITLE), r"b_en.json: no such file; .*subtitles.tar there$"),
    ("mlvu", cut, r"is no whole parquet file"),
    ("mlvu", change(task_type="needleQA"), r"row 1: task_type 'needleQA' is none of MLVU dev's"),
    ("mlvu", change(answer="a ring"), r"row 1: answer 'a ring'; must be A to D$"),
    (
        "mvbench",
        remove("json/state_change.json"),
        r"no file of MVBench's state_change here; looked",
    ),
    (
        "mvbench",
        write("json/action_count.json", '[{"video": "a'),
        r"json: is damaged JSON: .*again$",
    ),
    (
        "mvbench",
        write("json/action_count.json", "{}"),
        r"action_count.json: must be a list of rows$",
    ),
    ("mvbench", write("json/action_count.json", "[]"), r"action_count.json: holds no row"),
    ("mvbench", write("json/action_count.json", "[3]"), r"row 1 is no object"),
    ("nextgqa", remove("gsub_test.json"), r"gsub_test.json: cannot be read: No such file"),
    ("nextgqa", write("gsub_test.json", '{"a": [1]}'), r"gsub_test.json: a: must have location"),
    (
        "nextgqa",
        write("test.csv", "video_id,qid\na,1\n"),
        r"test.csv: row 1 has no column 'question'",
    ),
    ("videohallucer", write("temporal/temporal.json", "[{}]"), r"row 1 has no column 'basic'"),
    ("demo", write("heldout.json", '{"a.mp4": [{}]}'), r"is no truth of synthetic videos \(KeyErr"),
    ("demo", write("heldout.json", "{"), r"is no truth of synthetic videos \(JSONDecodeError"),
    ("own", write("own.jsonl", '{"id": "q'), r"own.jsonl: line 1 is damaged JSON"),
]


@pytest.mark.parametrize(("name", "damage", "message"), WRONG)
def test_what_is_wrong_is_told_in_one_line(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    path = write_task(tmp_path, name, VIDEOS)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as told:
        find_task(name).read(path)
    assert str(told.value).startswith(str(tmp_path)) and "\n" not in str(told.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder; give MLVU dev's data"):
        find_task("mlvu").read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["tempcompass", "videohallucer"])
def test_a_file_where_a_folder_is_needed(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "one.json", [])
    with pytest.raises(InputError, match="one.json: give the folder with .*, not one file"):
        find_task(name).read(tmp_path / "one.json")


def test_the_json_form_of_longvideobench(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "longvideobench_val_v", VIDEOS)
    rows = parquet.read_table(table(folder)).to_pylist()
    expected = find_task("longvideobench_val_v").read(folder)
    for row in rows:
        options = [row.pop(f"option{number}") for number in range(5)]
        row["candidates"] = [option for option in options if option != "N/A"]
    table(folder).unlink()
    write_json(folder / "lvb_val.json", rows)
    assert find_task("longvideobench_val_v").read(folder) == expected


def test_bad_subtitles_are_told_when_they_are_asked_for(tmp_path: Path) -> None:
    protocol = find_protocol("tpo-paper", "video_mme_subtitles", "longva")
    task = find_task("video_mme_subtitles")
    items = task.read(write_task(tmp_path, task.name, VIDEOS))
    (tmp_path / "subtitle/b.srt").write_text("1\n00:00:01.5 --> 00:00:02.5\nhello\n", "utf-8")
    with pytest.raises(InputError, match=r"b.srt: '00:00:01.5 --> 00:00:02.5' is no time"):
        task.prompt(items[2], protocol, FACTS)
    task = find_task("longvideobench_val_i")
    items = task.read(write_task(tmp_path / "lvb", task.name, VIDEOS))
    write_json(tmp_path / "lvb/subtitles/a_en.json", [{"timestamp": [1, 2]}])
    with pytest.raises(InputError, match=r"a_en.json: subtitle 1 is .*; must have timestamp and"):
        task.prompt(items[0], protocol, FACTS)
