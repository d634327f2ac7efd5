"""`tpo eval --tasks`: from published files to results and pages, with the tiny model."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.task_result import read_results
from benchmarks.tasks.registry import TASKS, find_task
from data_pipelines.answering import Answer, Request
from data_pipelines.artefacts import read_manifest
from data_pipelines.frames import FrameStore
from tests.benchmarks.made_tasks import write_task
from tests.data_pipelines.conftest import make_video  # noqa: F401
from tpo_jax.cli import eval_tasks
from tpo_jax.cli.eval_model import load_overridden
from tpo_jax.cli.main import main
from tpo_jax.models.video_lmm import VideoLMMConfig

VIDEOS = ("a", "b", "c")
SMALL = ("--set=frames=4", "--set=max_new_tokens=4", "--set=interleaved_frames=4")
# One process, and a model that is not spread over the tests' eight devices.
HERE = ("--config.workers=1", "--config.mesh.data=-1", "--config.mesh.fsdp=1")


@pytest.fixture(scope="module")
def videos(
    tmp_path_factory: pytest.TempPathFactory,
    make_video: Callable[..., Path],  # noqa: F811
) -> Path:
    """Three videos of 8, 12 and 16 seconds."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(VIDEOS):
        make_video(folder / f"{name}.mp4", count=40 + 20 * number, fps=5, first=200 * number)
    return folder


class Talker:
    """In place of the model: names an option by the question alone, and can be told to die."""

    left = 10**6
    asked: list[int] = []
    shown: list[list[int]] = []

    def __init__(self, model: Any, **settings: Any):
        self._settings = settings

    def told_times(self, info: Any) -> np.ndarray:
        return info.times_F

    def answer_frames(
        self, frames: np.ndarray, times: np.ndarray, duration: float, requests: Sequence[Request]
    ) -> list[Answer]:
        if not Talker.left:
            raise KeyboardInterrupt
        Talker.left -= 1
        Talker.asked.append(len(requests))
        assert frames.dtype == np.uint8 and len(frames) == len(times)
        for request in requests:
            assert request.positions.max(initial=-1) < len(frames)
            Talker.shown.append(request.positions.tolist())
            marks = request.question.count("<image>")
            assert marks == (len(request.positions) if request.interleaved else 0)
        texts = ["ABCD"[len(request.question) % 4] for request in requests]
        return [Answer(text=text, tokens=2, logprob=-1.0, finished=True) for text in texts]


@pytest.fixture
def talker(monkeypatch: pytest.MonkeyPatch) -> type[Talker]:
    """Asks a `Talker` in place of the model."""
    monkeypatch.setattr(eval_tasks, "Answerer", Talker)
    monkeypatch.setattr(Talker, "left", 10**6)
    monkeypatch.setattr(Talker, "asked", [])
    monkeypatch.setattr(Talker, "shown", [])
    return Talker


def evaluate(task: str, data: Path, videos: Path, out: Path, *more: str) -> int:
    """Runs the verb on one task."""
    base = [f"--tasks={task}", f"--data={data}", f"--videos={videos}", f"--out={out}"]
    return main(["eval", *base, *SMALL, *HERE, "--protocol=tpo-paper", *more])


@pytest.mark.parametrize("task", TASKS)
def test_every_task_goes_from_files_to_a_result(
    task: str, tmp_path: Path, videos: Path, talker: type[Talker]
) -> None:
    data = write_task(tmp_path / "data", task, VIDEOS)
    assert evaluate(task, data, videos, tmp_path / "out") == 0
    result = read_results(tmp_path / "out")[task]
    items = find_task(task).read(data)
    assert [line["item"] for line in result.items] == [item.id for item in items]
    assert len(talker.asked) == len({Path(item.video).stem for item in items})
    assert sum(talker.asked) == len(items)
    scores = result.manifest["scores"]
    assert scores["metric"] in scores["metrics"]
    assert scores["correct"] == sum(line["correct"] for line in result.items)
    made_from = result.manifest["made_from"]
    assert made_from["protocol"]["frames"] == 4
    assert made_from["model"]["pool"] == "average"
    assert made_from["model"]["pixel_dtype"] == "float16"
    assert json.loads((tmp_path / "out/result.json").read_text())[task]["scores"] == scores
    # Run again, nothing is asked.
    talker.left = 0
    assert evaluate(task, data, videos, tmp_path / "out") == 0


def test_the_tiny_model_answers_and_is_compared(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the model itself: all frames before the text, and frames between subtitles."""
    own = write_task(tmp_path / "own", "own", VIDEOS[:2], each=1)
    between = write_task(tmp_path / "lvb", "longvideobench_val_i", VIDEOS[:1], each=1)
    tasks = "--tasks=own,longvideobench_val_i"
    places = [f"--data=own={own}", f"--data=longvideobench_val_i={between}", f"--videos={videos}"]
    common = ["eval", tasks, *places, *SMALL, *HERE]
    first, second, page = tmp_path / "first", tmp_path / "second", tmp_path / "page.html"
    assert main([*common, "--protocol=tpo-paper", f"--out={first}"]) == 0
    compare = [f"--compare={first}", f"--html={page}"]
    changes = ["--set=letters=new", "--protocol=tpo-paper"]
    assert main([*common, *changes, f"--out={second}", *compare]) == 0
    told = capsys.readouterr().out
    assert "measured differently: protocol.letters: 'legacy' and 'new'" in told
    assert "the same words in 2." in told  # the rule reads what was said, and changes none of it
    assert all(1 <= line["tokens"] <= 4 for line in read_results(first)["own"].items)
    html = page.read_text()
    assert "own: 2 questions about 2 videos" in html and "longvideobench_val_i: 1 q" in html
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert [one["task"] for one in numbers] == ["longvideobench_val_i", "own"]


def test_a_killed_run_goes_on(tmp_path: Path, videos: Path, talker: type[Talker]) -> None:
    data = write_task(tmp_path / "data", "own", VIDEOS)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert evaluate("own", data, videos, whole) == 0
    talker.left = 2
    assert evaluate("own", data, videos, out) == 130
    record = out / "own.partial/answers.1-of-1.jsonl"
    assert len(record.read_text().splitlines()) == 4
    record.write_bytes(record.read_bytes()[:-7])  # and its last line was cut off
    talker.left, talker.asked[:] = 10**6, []
    assert evaluate("own", data, videos, out) == 0
    assert talker.asked == [1, 2]  # of the second video what is missing, and the third
    lines = [(folder / "own/items.jsonl").read_text() for folder in (whole, out)]
    assert lines[0] == lines[1]


def test_a_run_begun_with_other_settings_is_refused(
    tmp_path: Path, videos: Path, talker: type[Talker], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_task(tmp_path / "data", "own", VIDEOS)
    out = tmp_path / "out"
    talker.left = 1
    assert evaluate("own", data, videos, out) == 130
    talker.left = 10**6
    assert evaluate("own", data, videos, out, "--set=letters=new") == 2
    assert "protocol.letters: found" in capsys.readouterr().err
    assert evaluate("own", data, videos, out) == 0
    assert evaluate("own", data, videos, out, "--set=letters=new") == 2
    assert "give another --out" in capsys.readouterr().err


def test_parts_share_the_work(tmp_path: Path, videos: Path, talker: type[Talker]) -> None:
    data = write_task(tmp_path / "data", "own", VIDEOS)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert evaluate("own", data, videos, whole) == 0
    (store,) = (tmp_path / "eval_frames").iterdir()
    assert evaluate("own", data, videos, out, "--part=1/2") == 2  # each would decode everything
    for part, calls in (("1/2", 2), ("2/2", 1)):
        talker.asked[:] = []
        assert evaluate("own", data, videos, out, f"--part={part}", f"--frames-store={store}") == 0
        assert len(talker.asked) == calls
    assert not (out / "own").exists()
    talker.left = 0
    assert evaluate("own", data, videos, out, f"--frames-store={store}") == 0
    lines = [(folder / "own/items.jsonl").read_text() for folder in (whole, out)]
    assert lines[0] == lines[1]


def test_a_broken_model_is_shouted_about(
    tmp_path: Path,
    videos: Path,
    talker: type[Talker],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def shout(self: Talker, *asked: Any) -> list[Answer]:
        return [Answer(text="!!!!!!", tokens=4, logprob=0.0, finished=False) for _ in asked[3]]

    monkeypatch.setattr(Talker, "answer_frames", shout)
    data = write_task(tmp_path / "data", "own", VIDEOS, each=8)
    assert evaluate("own", data, videos, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "warning: own: 24 of 24 answers are degenerate, such as '!!!!!!'" in said
    assert "found no option" in said
    assert len(read_manifest(tmp_path / "out/own", "scores")["warnings"]) == 3


@pytest.mark.parametrize("view", ["shuffled", "blind"])
def test_the_same_is_asked_with_frames_taken_away(
    tmp_path: Path, videos: Path, talker: type[Talker], view: str
) -> None:
    data = write_task(tmp_path / "data", "own", VIDEOS, each=2)
    assert evaluate("own", data, videos, tmp_path / "whole") == 0
    whole = talker.shown.copy()
    talker.shown.clear()
    assert evaluate("own", data, videos, tmp_path / view, f"--counterfactual={view}") == 0
    assert len(talker.shown) == len(whole) == 6
    for left, seen in zip(talker.shown, whole, strict=True):
        assert left == [] if view == "blind" else left != seen and sorted(left) == sorted(seen)
    made_from = read_manifest(tmp_path / view / "own", "scores")["made_from"]
    assert made_from["protocol"]["taken"] == view
    assert main(["eval", "--compare", str(tmp_path / "whole"), str(tmp_path / view)]) == 0


def test_frames_whose_places_are_told_cannot_be_taken_away(
    tmp_path: Path, videos: Path, talker: type[Talker], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_task(tmp_path / "data", "longvideobench_val_i", VIDEOS, each=2)
    given = "--counterfactual=blind"
    assert evaluate("longvideobench_val_i", data, videos, tmp_path / "out", given) == 2
    assert "taken=blind cannot" in capsys.readouterr().err


def test_missing_videos_are_named_or_left_out(
    tmp_path: Path, videos: Path, talker: type[Talker], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_task(tmp_path / "data", "own", [*VIDEOS, "elsewhere"])
    out = tmp_path / "out"
    assert evaluate("own", data, videos, out) == 2
    assert one_line(capsys).endswith(
        f"{videos}: 1 of 4 videos are not there: elsewhere.mp4; fetch them or point at the "
        "folder that has them\n"
    )
    assert evaluate("own", data, videos, out, "--leave-out-missing") == 0
    assert read_manifest(out / "own", "scores")["left_out"] == 2
    assert "own: 2 items were left out" in capsys.readouterr().err


def test_videos_that_cannot_be_decoded_are_named_or_left_out(
    tmp_path: Path, videos: Path, talker: type[Talker], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(videos, tmp_path / "videos")
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:300])
    data = write_task(tmp_path / "data", "own", [*VIDEOS, "broken"])
    out = tmp_path / "out"
    assert evaluate("own", data, folder, out) == 2
    said = one_line(capsys)
    assert "1 videos cannot be decoded; the first, " in said and "broken.mp4: " in said
    assert evaluate("own", data, folder, out, "--leave-out-missing") == 0
    assert read_manifest(out / "own", "scores")["left_out"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tasks=owm"], "did you mean 'own'?"),
        (["--tasks=own"], "no data for own; give --data own=PATH"),
        (["--tasks=own", "--data=ovn=x"], "ovn is not among --tasks=own; did you mean own?"),
        (["--tasks=own", "--data=DATA", "--set=frame=3"], "did you mean frames?"),
        (["--tasks=own", "--data=DATA", "--set=pool=mean"], "--set=pool=mean: must be one of"),
        (["--tasks=own", "--data=DATA", "--set=frames=x"], "--set=frames=x: must be a number"),
        (["--tasks=own", "--data=DATA", "--part=3/2"], "--part=3/2: give I/N"),
        (["--tasks=own", "--data=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--tasks=own", "--data=DATA", "--videos=nowhere"], "nowhere: no such folder of videos"),
        (["--tasks=own", "--data=DATA", "--frames-store=nowhere"], "nowhere: no finished 'frames'"),
        (["--compare", "a"], "--compare: 1 given; give two results"),
        (["--compare", "a", "b"], "a: no result here"),
        (["--html=x.html", "--tasks=own"], "--html=x.html: only used with --compare"),
        (["--checkpoint=demo_base"], "--checkpoint: for published benchmarks; give --tasks"),
        (["--from-logs=x.jsonl"], "--from-logs: give the log's task as --tasks=NAME"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_task(tmp_path / "data", "own", VIDEOS)
    given = [option.replace("DATA", str(data)) for option in options]
    assert main(["eval", *given, f"--out={tmp_path / 'out'}"]) == 2
    assert said in one_line(capsys)


def test_a_store_must_hold_the_frames_of_the_protocol(
    tmp_path: Path, videos: Path, talker: type[Talker], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_task(tmp_path / "data", "own", VIDEOS)
    assert evaluate("own", data, videos, tmp_path / "out") == 0
    (folder,) = (tmp_path / "eval_frames").iterdir()
    store = f"--frames-store={folder}"
    assert evaluate("own", data, videos, tmp_path / "other", store, "--set=frames=5") == 2
    said = one_line(capsys)
    assert "a.mp4: 3 of the 5 frames that the protocol shows are not stored" in said
    shown = read_results(tmp_path / "out")["own"].items[0]
    opened = FrameStore.open(folder)
    assert opened.info(shown["video"]).numbers_F[shown["positions"]].tolist() == [0, 13, 26, 39]


def test_a_log_of_lmms_eval_is_scored_and_compared(
    tmp_path: Path, videos: Path, talker: type[Talker], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_task(tmp_path / "data", "mlvu", VIDEOS)
    ours, theirs, log = tmp_path / "ours", tmp_path / "theirs", tmp_path / "samples_mlvu.jsonl"
    assert evaluate("mlvu", data, videos, ours) == 0
    lines = read_results(ours)["mlvu"].items
    logged = [
        {
            "doc_id": number,
            "target": line["answer"],
            "filtered_resps": line["said"] if number else "nothing to be found",
            "input": line["prompt"],
        }
        for number, line in enumerate(lines)
    ]
    log.write_text("".join(json.dumps(one) + "\n" for one in logged[::-1]))
    scored = ["eval", f"--from-logs={log}", "--tasks=mlvu", f"--data={data}", f"--out={theirs}"]
    assert main([*scored, "--protocol=tpo-paper", f"--compare={ours}"]) == 0
    assert f"The same choice in {len(lines) - 1} of {len(lines)}" in capsys.readouterr().out
    copy = read_results(theirs)["mlvu"].items
    assert [line["said"] for line in copy[1:]] == [line["said"] for line in lines[1:]]
    # Another question under the same number is found.
    log.write_text(json.dumps(logged[0] | {"doc_id": 1}) + "\n")
    assert main([*scored[:-1], f"--out={tmp_path / 'wrong'}"]) == 2
    assert "line 1: doc_id 1 is another question than" in one_line(capsys)


def test_settings_are_overwritten_and_parameters_are_not() -> None:
    model = load_overridden("demo_base")
    other = load_overridden("demo_base", pool="average", pixel_dtype="float16")
    assert isinstance(other.config, VideoLMMConfig)
    assert (model.config.visual_tokens.pool, other.config.visual_tokens.pool) == (
        "bilinear",
        "average",
    )
    assert other.config.vision.pixel_dtype == "float16"
    assert other.fingerprint == model.fingerprint


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was written to stderr last, which is one line without a traceback."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines(keepends=True) if "error: " in line]
    return line
