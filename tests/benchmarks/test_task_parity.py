"""Every task beside what the field's harnesses make of the same rows and replies.

The rows are drawn again from their seeds (`task_rows.py`), written in the published form, and read
as a user's would be; what lmms-eval 0.7.3, its state of January 2025, NExT-GQA and VideoHallucer
make of them is in `task_cases.json` (made by `task_cases_maker.py`).
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.letters import find_letter
from benchmarks.paired_test import clustered_error
from benchmarks.protocols import Protocol, VideoFacts, find_protocol
from benchmarks.tasks import longvideobench, mlvu, mvbench, nextgqa, tempcompass, videohallucer
from benchmarks.tasks.item import Item
from benchmarks.tasks.registry import find_task
from benchmarks.tasks.spans import overlap, overlap_summary
from benchmarks.tasks.task import Task, score_all
from tests.benchmarks import made_tasks, task_rows

CASES = json.loads(Path(__file__).with_name("task_cases.json").read_text("utf-8"))
FACTS = VideoFacts(frames=900, fps=30.0, duration=30.0)
PAPER = find_protocol("tpo-paper", "video_mme", "llava_video")
HARNESS = find_protocol("lmms-eval", "video_mme", "longva")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def prompts(task: Task, items: Sequence[Item], protocol: Protocol) -> list[str]:
    return [digest(task.prompt(item, protocol, FACTS)) for item in items]


def sums(
    task: Task, items: Sequence[Item], said: Sequence[str], protocol: Protocol, counts: list[int]
) -> list[Any]:
    scored = score_all(task, items, said, protocol)
    return [task.summarise(items[:n], scored[:n], protocol)["value"] for n in counts]


def letters(task: Task, items: Sequence[Item], said: Sequence[str], protocol: Protocol) -> str:
    return "".join(one.predicted or "-" for one in score_all(task, items, said, protocol))


def test_video_mme(tmp_path: Path) -> None:
    cases = CASES["video_mme"]
    rng = random.Random(1)
    rows = [task_rows.video_mme(rng, number) for number in range(300)]
    said = [task_rows.reply(rng) for _ in rows]
    made_tasks.write_video_mme(tmp_path, rows)
    task = find_task("video_mme")
    items = task.read(tmp_path)
    for form, recorded in cases["prompts"].items():
        assert prompts(task, items[:100], replace(HARNESS, prompts=form)) == recorded
    assert prompts(task, items[:100], PAPER) == cases["prompts"]["0.7.3"]  # has not changed
    for protocol in (PAPER, HARNESS):
        recorded = cases[protocol.letters]
        assert letters(task, items, said, protocol) == recorded["letters"]
        assert sums(task, items, said, protocol, [1, 10, 90, 300]) == recorded["sums"]


def test_subtitles_of_video_mme(tmp_path: Path) -> None:
    task = find_task("video_mme_subtitles")
    rows, facts = [], []
    (tmp_path / "subtitle").mkdir()
    for number in range(240):
        rng = random.Random(number)
        rows.append(task_rows.video_mme(rng, number * 3))
        fps, frames = rng.choice([23.976, 25.0, 29.97]), rng.choice([1, 700, 5000, 20000])
        facts.append(VideoFacts(frames=frames, fps=fps, duration=frames / fps))
        if number % 20:
            path = tmp_path / "subtitle" / f"{rows[-1]['videoID']}.srt"
            path.write_text(task_rows.srt(rng, frames / fps), "utf-8")
    made_tasks.write_video_mme(tmp_path, rows)
    ordered = 0
    for number, (item, video) in enumerate(zip(task.read(tmp_path), facts, strict=True)):
        protocol = replace(PAPER, subtitle_points=(32, 32, 32, 768, -1, 7)[number % 6])
        text = task.prompt(item, protocol, video)
        assert digest(text) == CASES["video_mme"]["subtitles"][number], number
        ordered += text == task.prompt(item, replace(protocol, subtitle_order="time"), video)
    assert 12 <= ordered < 120  # the repaired rule is another one; without subtitles it is not


def test_longvideobench(tmp_path: Path) -> None:
    cases = CASES["longvideobench"]
    rng = random.Random(2)
    rows = [task_rows.longvideobench(rng, number) for number in range(400)]
    said = [task_rows.reply(rng) for _ in rows]
    of_row, facts = [], []
    for number, row in enumerate(rows[:200]):
        rng = random.Random(number)
        of_row.append(task_rows.longvideobench_subtitles(rng, row))
        facts.append(VideoFacts(frames=10**6, fps=rng.choice([23.976, 25.0, 29.97]), duration=1))
        # Two rows share a video, and the file of its subtitles; here each has its own.
        row["subtitle_path"] = f"{number}.json"
    made_tasks.write_longvideobench(tmp_path, rows[:200], of_row)
    task = find_task("longvideobench_val_i")
    protocol = find_protocol("tpo-paper", task.name, "llava_video")
    items = task.read(tmp_path)
    assert prompts(task, items, protocol) == cases["interleaved"]
    assert task.frames is not None
    for number, (item, video) in enumerate(zip(items, facts, strict=True)):
        taken = list(task.frames(item, protocol, video))
        assert digest(json.dumps(taken)) == cases["frames"][number]
        assert task.prompt(item, protocol, video).count("<image>") == len(taken)
    made_tasks.write_longvideobench(tmp_path, rows, [[]] * 400)
    task = find_task("longvideobench_val_v")
    items = task.read(tmp_path)
    assert prompts(task, items[:200], protocol) == cases["prompts"]
    # Guesses and all: 400 replies in order from one generator.
    assert letters(task, items, said, protocol) == cases["letters"]
    assert sums(task, items, said, protocol, [1, 10, 77, 400]) == cases["sums"]
    guessed = [one for one in score_all(task, items, said, protocol) if not one.parsed]
    assert len(guessed) > 30
    wrong = score_all(task, items, said, replace(protocol, letters="new"))
    assert any(one.predicted == "" for one in wrong)
    assert longvideobench.TASKS[0].items == 1337


def test_mlvu(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = [task_rows.mlvu(rng, number) for number in range(400)]
    said = [task_rows.reply(rng) for _ in rows]
    made_tasks.write_parquet(tmp_path / "test-0.parquet", rows, made_tasks.MLVU)
    items = mlvu.read(tmp_path)
    for form, protocol in (("new", HARNESS), ("legacy", PAPER)):
        recorded = CASES["mlvu"][form]
        assert prompts(mlvu.TASK, items[:100], protocol) == recorded["prompts"]
        assert letters(mlvu.TASK, items, said, protocol) == recorded["letters"]
        found = sums(mlvu.TASK, items, said, protocol, [7, 60, 400])
        assert found == pytest.approx(recorded["sums"], abs=1e-9)  # it adds up a set, in any order
    metrics = mlvu.summarise(items, score_all(mlvu.TASK, items, said, PAPER), PAPER)["metrics"]
    assert metrics["mlvu_micro"] == pytest.approx(CASES["mlvu"]["legacy"]["sums"][-1])
    assert metrics["mlvu_micro"] != pytest.approx(metrics["mlvu_m_avg"])


def test_mvbench(tmp_path: Path) -> None:
    cases = CASES["mvbench"]
    rng = random.Random(4)
    rows = [task_rows.mvbench(rng, number) for number in range(500)]
    said = ["" if number % 25 == 0 else task_rows.reply(rng) for number in range(500)]
    made_tasks.write_json(tmp_path / "state_change.json", rows)
    items = mvbench.read(tmp_path / "state_change.json")
    assert prompts(mvbench.TASK, items[:100], PAPER) == cases["prompts"]
    scored = score_all(mvbench.TASK, items, said, PAPER)
    assert "".join(str(int(one.correct)) for one in scored) == cases["hits"]
    assert sums(mvbench.TASK, items, said, PAPER, [2, 60, 500]) == cases["sums"]


def test_tempcompass(tmp_path: Path) -> None:
    said: list[str] = []
    for part in tempcompass.AFTER:
        rng = random.Random(5)
        rows = [task_rows.tempcompass(rng, part, number) for number in range(300)]
        said += [task_rows.tempcompass_reply(rng, row) for row in rows]
        made_tasks.write_parquet(tmp_path / part / "test-0.parquet", rows, made_tasks.TEMPCOMPASS)
    items = tempcompass.read(tmp_path)
    scored = score_all(tempcompass.TASK, items, said, PAPER)
    metrics = tempcompass.summarise(items, scored, PAPER)["metrics"]
    for number, part in enumerate(tempcompass.AFTER):
        cases, at = CASES["tempcompass"][part], slice(300 * number, 300 * number + 300)
        assert prompts(tempcompass.TASK, items[at][:60], PAPER) == cases["prompts"]
        hits = "".join(str(int(one.correct)) if one.parsed else "-" for one in scored[at])
        assert hits == cases["hits"]
        assert metrics[f"tempcompass_{part}"] == pytest.approx(100 * hits.count("1") / 300)
    unmatched = sum(CASES["tempcompass"][part]["hits"].count("-") for part in tempcompass.AFTER)
    assert metrics["unmatched"] == pytest.approx(100 * unmatched / 900)


def test_nextgqa(tmp_path: Path) -> None:
    cases = CASES["nextgqa"]
    rng = random.Random(6)
    rows = [task_rows.nextqa(rng, number) for number in range(300)]
    located: dict[str, Any] = {}
    said: list[str] = []
    for row in rows:
        place = located.setdefault(row["video_id"], {"duration": 60, "location": {}, "fps": 25})
        place["location"][row["qid"]] = task_rows.spans(rng, 60)
        span = task_rows.told_span(rng, 60)
        right = rng.random() < 0.6
        gold = "ABCDE"[[row[f"a{i}"] for i in range(5)].index(row["answer"])]
        said.append(gold if right else "no letter")
        said.append("I cannot tell" if span is None else f"From {span[0]}s to {span[1]}s.")
    made_tasks.write_csv(tmp_path / "test.csv", rows)
    made_tasks.write_json(tmp_path / "gsub_test.json", located)
    items = nextgqa.read(tmp_path)
    asked = [item for item in items if item.kind == "answer"]
    assert prompts(nextgqa.TASK, asked[:100], HARNESS) == cases["prompts"]
    scored = score_all(nextgqa.TASK, items, said, HARNESS)
    metrics = nextgqa.summarise(items, scored, HARNESS)["metrics"]
    names = ("acc_gqa", "mIoP", "IoP@0.3", "IoP@0.5", "mIoU", "IoU@0.3", "IoU@0.5")
    assert [f"{metrics[f'{name}_told']:.1f}" for name in names] == cases["printed"]
    # What was not told counts: the same sums over more questions.
    told = sum(one.parsed for item, one in zip(items, scored, strict=True) if item.kind == "ground")
    for name in names:
        assert metrics[name] == pytest.approx(metrics[f"{name}_told"] * told / 300)


def test_overlaps_of_spans() -> None:
    pairs = [(a / 2, b / 2) for a in range(24) for b in range(a, 24)]
    for told, (iou, iop) in zip(pairs, CASES["nextgqa"]["overlaps"], strict=True):
        assert overlap([(2.5, 9.0)], told) == pytest.approx((max(iou, 0), max(iop, 0)), abs=1e-12)
    # The best of several, each measure for itself.
    assert overlap([(0.0, 1.0), (0.0, 9.0)], (0.0, 2.0)) == pytest.approx((0.5, 1.0))
    assert overlap_summary({}, {}, {}, missing_is_zero=True)["mIoU"] == 0


def test_videohallucer(tmp_path: Path) -> None:
    rng = random.Random(7)
    said: list[str] = []
    for subset in videohallucer.SUBSETS:
        rows = [task_rows.videohallucer(rng, number) for number in range(60)]
        said += [task_rows.yes_no_reply(rng) for _ in rows for _ in range(2)]
        made_tasks.write_json(tmp_path / subset / f"{subset}.json", rows)
    items = videohallucer.read(tmp_path)
    scored = score_all(videohallucer.TASK, items, said, PAPER)
    metrics = videohallucer.summarise(items, scored, PAPER)["metrics"]
    for ours, theirs in (
        ("basic", "basic_accuracy"),
        ("hallucination", "halluc_accuracy"),
        ("overall", "accuracy"),
    ):
        each = [100 * case[theirs] for case in CASES["videohallucer"]]
        found = [metrics[f"{subset}_{ours}"] for subset in videohallucer.SUBSETS]
        assert found == pytest.approx(each)
        assert metrics[f"videohallucer_{ours}"] == pytest.approx(sum(each) / 5)


def test_clustered_standard_errors() -> None:
    for seed, recorded in enumerate(CASES["standard_errors"]):
        rng = random.Random(seed)
        values = [float(rng.random() < 0.4) for _ in range(rng.randint(2, 80))]
        clusters = [str(rng.randrange(12)) for _ in values]
        assert clustered_error(np.array(values), clusters) == pytest.approx(recorded, abs=1e-12)


def test_letters_of_january_2025_are_found_in_every_reply() -> None:
    rng = random.Random(1)
    rows = [task_rows.video_mme(rng, number) for number in range(300)]
    said = [task_rows.reply(rng) for _ in rows]
    found = "".join(find_letter(text, "ABCD", "legacy", rng) or "-" for text in said)
    assert found == CASES["video_mme"]["legacy"]["letters"]
    assert found != CASES["video_mme"]["new"]["letters"]
