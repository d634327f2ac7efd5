"""Small data sets in the files, columns and types in which the benchmarks are published.

    write_task(folder, "video_mme_subtitles", ["a", "b"])   # about videos a.mp4 and b.mp4

What stands in the rows is drawn by chance (`task_rows.py`): they are true in form only.
"""

import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from benchmarks.tasks.mvbench import FOLDERS
from benchmarks.tasks.tempcompass import AFTER
from benchmarks.tasks.videohallucer import SUBSETS
from data_pipelines.synthetic import draw_events, draw_timeline
from tests.benchmarks import task_rows
from tests.benchmarks.task_rows import Row

STRINGS = ("video_id", "duration", "domain", "sub_category", "url", "videoID", "question_id")
VIDEO_MME = pa.schema(
    [
        *((name, pa.string()) for name in (*STRINGS, "task_type", "question")),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
    ]
)
LONGVIDEOBENCH = pa.schema(
    [
        *((name, pa.string()) for name in ("video_id", "question", "question_wo_referring_query")),
        ("correct_choice", pa.int64()),
        *((f"option{number}", pa.string()) for number in range(5)),
        *((name, pa.string()) for name in ("id", "video_path", "subtitle_path", "topic_category")),
        ("question_category", pa.string()),
        ("duration_group", pa.int64()),
        ("starting_timestamp_for_subtitles", pa.float64()),
        ("duration", pa.float64()),
        ("view_count", pa.int64()),
    ]
)
MLVU = pa.schema(
    [
        ("video_name", pa.string()),
        ("duration", pa.float64()),
        *((name, pa.string()) for name in ("question", "candidates", "answer", "task_type")),
    ]
)
TEMPCOMPASS = pa.schema([(name, pa.string()) for name in ("video_id", "question", "answer", "dim")])
NEEDLES = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("answer", pa.string()),
    ]
)


def write_parquet(path: Path, rows: Sequence[Row], schema: pa.Schema) -> None:
    """Writes a table; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows), schema), path)


def write_json(path: Path, content: object) -> None:
    """Writes JSON; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def write_video_mme(folder: Path, rows: Sequence[Row]) -> None:
    """The table and a folder of subtitles that still has to be filled."""
    write_parquet(folder / "videomme" / "test-00000-of-00001.parquet", rows, VIDEO_MME)
    (folder / "subtitle").mkdir(exist_ok=True)


def write_longvideobench(folder: Path, rows: Sequence[Row], subtitles: Sequence[object]) -> None:
    """The table, and a subtitle file for each row."""
    write_parquet(folder / "validation-00000-of-00001.parquet", rows, LONGVIDEOBENCH)
    for row, content in zip(rows, subtitles, strict=True):
        write_json(folder / "subtitles" / row["subtitle_path"], content)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes a table of text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_needles(folder: Path, rows: Sequence[tuple[Image.Image, str, str]]) -> None:
    """Pictures, questions and answers, as lmms-lab/v_niah_needles has them."""
    table = []
    for picture, question, answer in rows:
        data = io.BytesIO()
        picture.save(data, "PNG")
        image = {"bytes": data.getvalue(), "path": None}
        table.append({"image": image, "question": question, "answer": answer})
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", table, NEEDLES)


# ------------------------------------------------------------- about videos that are really there


def write_task(folder: Path, name: str, videos: Sequence[str], each: int = 2) -> Path:
    """Writes a task's files, about given videos.

    Args:
      folder: where to; it is made.
      name: of the task, as `tpo eval --tasks` knows it.
      videos: names without suffix.
      each: questions about each video (for NExT-GQA 3 at most).

    Returns:
      what `Task.read` reads: the folder, or the file for one's own questions and the demo's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(name)
    numbered = [(video, number) for video in videos for number in range(each)]
    if name == "own":
        return _own(folder / "own.jsonl", rng, numbered)
    if name == "demo":
        return _demo(folder / "heldout.json", videos)
    writers: dict[str, Callable[[Path, random.Random, Sequence[tuple[str, int]]], None]] = {
        "longvideobench_val_v": _longvideobench,
        "longvideobench_val_i": _longvideobench,
        "mlvu": _mlvu,
        "mvbench": _mvbench,
        "nextgqa": _nextgqa,
        "tempcompass": _tempcompass,
        "videohallucer": _videohallucer,
    }
    writers.get(name, _video_mme)(folder, rng, numbered)
    return folder


def _video_mme(folder: Path, rng: random.Random, numbered: Sequence[tuple[str, int]]) -> None:
    rows: list[Row] = []
    for video, number in numbered:
        drawn = task_rows.video_mme(rng, 3 * len(rows))
        rows.append(drawn | {"videoID": video, "question_id": f"{video}-{number + 1}"})
    write_video_mme(folder, rows)
    for video in list(dict.fromkeys(video for video, _ in numbered))[1:]:  # the first has none
        (folder / "subtitle" / f"{video}.srt").write_text(task_rows.srt(rng, 60.0), "utf-8")


def _longvideobench(folder: Path, rng: random.Random, numbered: Sequence[tuple[str, int]]) -> None:
    rows: list[Row] = []
    subtitles: list[object] = []
    for video, number in numbered:
        row = task_rows.longvideobench(rng, len(rows))
        named = {"video_path": f"{video}.mp4", "subtitle_path": f"{video}_en.json"}
        rows.append(row | named | {"id": f"{video}_{number}"})
        subtitles.append(task_rows.longvideobench_subtitles(rng, row))
    write_longvideobench(folder, rows, subtitles)


def _mlvu(folder: Path, rng: random.Random, numbered: Sequence[tuple[str, int]]) -> None:
    rows = [
        task_rows.mlvu(rng, place) | {"video_name": f"{video}.mp4"}
        for place, (video, _) in enumerate(numbered)
    ]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows, MLVU)


def _mvbench(folder: Path, rng: random.Random, numbered: Sequence[tuple[str, int]]) -> None:
    for task in FOLDERS:
        rows = [
            task_rows.mvbench(rng, place) | {"video": f"{video}.mp4"}
            for place, (video, _) in enumerate(numbered)
        ]
        write_json(folder / "json" / f"{task}.json", rows)


def _tempcompass(folder: Path, rng: random.Random, numbered: Sequence[tuple[str, int]]) -> None:
    for part in AFTER:
        rows = [
            task_rows.tempcompass(rng, part, place) | {"video_id": video}
            for place, (video, _) in enumerate(numbered)
        ]
        write_parquet(folder / part / "test-00000-of-00001.parquet", rows, TEMPCOMPASS)


def _nextgqa(folder: Path, rng: random.Random, numbered: Sequence[tuple[str, int]]) -> None:
    rows = [
        task_rows.nextqa(rng, place) | {"video_id": video, "qid": str(number)}
        for place, (video, number) in enumerate(numbered)
    ]
    located: dict[str, Row] = {}
    for row in rows:
        place = located.setdefault(row["video_id"], {"duration": 60, "location": {}, "fps": 25})
        place["location"][row["qid"]] = task_rows.spans(rng, 60)
    write_csv(folder / "test.csv", rows)
    write_json(folder / "gsub_test.json", located)


def _videohallucer(folder: Path, rng: random.Random, numbered: Sequence[tuple[str, int]]) -> None:
    for subset in SUBSETS:
        rows = [task_rows.videohallucer(rng, place) for place in range(len(numbered))]
        for row, (video, _) in zip(rows, numbered, strict=True):
            for side in ("basic", "hallucination"):
                row[side]["video"] = f"{video}.mp4"
        write_json(folder / subset / f"{subset}.json", rows)


def _demo(path: Path, videos: Sequence[str]) -> Path:
    rng = np.random.default_rng(0)
    truth = {}
    for video in videos:
        timeline = draw_timeline(rng, draw_events(rng, 5))
        truth[f"{video}.mp4"] = [asdict(shown) for shown in timeline]
    write_json(path, truth)
    return path


def _own(path: Path, rng: random.Random, numbered: Sequence[tuple[str, int]]) -> Path:
    rows = [
        {
            "id": f"{video}/{number}",
            "video": f"{video}.mp4",
            "question": task_rows.words(rng),
            "options": [task_rows.words(rng) for _ in range(3)],
            "answer": rng.choice("ABC"),
            "groups": {"kind": rng.choice(["order", "count"])},
        }
        for video, number in numbered
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
