"""`tpo curate` with a language model behind an endpoint, over made and real videos; its cost."""

import json
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.artefacts import read_manifest
from data_pipelines.curation.written import AGAIN
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import read_pairs
from data_pipelines.synthetic import write_videos
from data_pipelines.text_models.text_model import TextPrompt
from tests.data_pipelines.text_models.loopback import Loopback, serve
from tpo_jax.cli.config import load_config
from tpo_jax.cli.curate import make_pairs
from tpo_jax.cli.curation_cost import curation_cost
from tpo_jax.cli.loop import round_settings
from tpo_jax.cli.main import main
from tpo_jax.cli.planned_model import find_model
from tpo_jax.cli.players import Players
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.generation.engine import Engine
from tpo_jax.planning.hardware import parse_slice

pytest.importorskip("openai")
ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "videos" / "dc_demo.mp4"
FAULTS = [*["", 429, "", "", "cut", "", 500, "", "garbage", ""] * 4, "slow"]
TIMEOUT = 3.0  # seconds; long, so that a busy machine is not taken for a slow server
PARALLEL = 2  # requests under way
QUESTIONS = ("Which way do the red shapes move?", "What comes first in the video?")


def reply(prompt: str) -> str:
    """Captions, questions and verdicts, by what is asked; some of it out of form."""
    mood = zlib.crc32(prompt.encode())
    if stage_of(prompt) != "captions" and mood % 7 < 2:
        return "Well."
    if "Answer 1:" in prompt:
        verdict = {"better": True, "unambiguous": mood % 4 > 0, "right": True, "why": "so it is"}
        return json.dumps(verdict)
    if '"question"' in prompt:
        asked = f"{QUESTIONS[mood % 2]} ({mood % 97})"
        return "None" if mood % 5 == 0 else json.dumps({"question": asked, "answer": "Up."})
    return "Shapes of some colour move."


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the frames of two made videos, and of a real one where it is at hand."""
    root = tmp_path_factory.mktemp("curate")
    write_videos(root / "videos", root / "truth.json", count=2, events=(4, 4), seed=5)
    if REAL.exists():
        shutil.copy(REAL, root / "videos")
    assert main(["frames", *options(root, ""), f"--config.videos={root}/videos"]) == 0
    return root


def options(root: Path, url: str, **changes: Any) -> list[str]:
    told = {
        "run_dir": root,
        "workers": 1,
        "frames.max_frames": 24,
        # So few frames that all prompts are of one length, and the steps are compiled once.
        "curate.dense_frames": 8,
        "curate.sparse_frames": 3,
        "curate.segment_seconds": 8.0,
        "curate.segment_frames": 4,
        "curate.captioner": "endpoint",
        "curate.questions": "endpoint",
        "curate.judge": "endpoint",
        "curate.comprehensive_per_video": 2,
        "curate.endpoint.base_url": url,
        "curate.endpoint.model": "small",
        "curate.endpoint.backoff": 0.01,
        "curate.endpoint.parallel": PARALLEL,
        "curate.endpoint.timeout": TIMEOUT,
        "curate.endpoint.price_in": 1.0,
        "mesh.data": 8,
        "mesh.fsdp": 1,
    }
    return [f"--config.{key}={value}" for key, value in (told | changes).items()]


# Where a run is killed: at the n-th request of a stage, or once n videos have their answers.
# That a kill in any other stage is survived is shown, quickly and without a process of its own, in
# tests/data_pipelines/curation/test_resume.py.
KILLS = [("answers", 1)]
MORE_KILLS = [("captions", 3), ("questions", 2), ("answers", 2), ("verdicts", 2), ("verdicts", 3)]


@pytest.mark.parametrize("kills", [KILLS, pytest.param(MORE_KILLS, marks=pytest.mark.slow)])
def test_kills_and_errors_over_real_and_made_videos(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: list[tuple[str, int]]
) -> None:
    """SIGKILL to `tpo curate`, and a server that is busy, slow, cut off and talks nonsense."""
    with serve(reply) as server, counting(monkeypatch) as shown:
        settings = settings_of(stored, tmp_path / "plain", server)
        make_pairs(settings)
        plain = server.prompts
    assert_at_most_what_a_dry_run_says(settings, plain, shown)
    killed, seen, doomed = tmp_path / "killed", Counter[str](), list[subprocess.Popen]()

    def deadly(prompt: str) -> str:
        seen[stage_of(prompt)] += 1
        if doomed and seen[stage] >= number:
            doomed.pop().kill()
        return reply(prompt)

    # The same address: it is part of what the pairs are made from.
    port = int(server.url.split(":")[2].split("/")[0])
    with serve(deadly, FAULTS, port=port, slow=TIMEOUT + 1) as server:
        for stage, number in kills:
            seen.clear()
            process = start_curating(stored, killed, server)
            doomed[:] = [process]
            try:
                if stage == "answers":
                    kill_after_answers(process, killed, number)
                assert process.wait(timeout=600) == -signal.SIGKILL
            finally:
                process.kill()
            assert not (killed / "pairs").exists()
        doomed.clear()
        make_pairs(settings_of(stored, killed, server))
        # No prompt is answered again but those that were under way when the process died.
        again = Counter(server.prompts) - Counter(plain)
        assert set(server.prompts) == set(plain) and again.total() <= PARALLEL * len(kills)
        assert server.frames and server.requests > len(server.prompts)
    for name in ("pairs.jsonl", "dropped.jsonl", "captions.jsonl", "manifest.json"):
        one, other = (tmp_path / run / "pairs" / name for run in ("plain", "killed"))
        assert one.read_bytes() == other.read_bytes(), name
    pairs = read_pairs(tmp_path / "plain" / "pairs" / "pairs.jsonl")
    assert pairs and all(pair.judge.startswith("written 2 by small@") for pair in pairs)
    assert {pair.made_with["train_frames"] for pair in pairs} == {32}
    page = (tmp_path / "killed" / "curation.html").read_text()
    for text in ("so it is", "declined", "question_unreadable", "train_frames"):
        assert text in page


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Counts the frames that are encoded and the visual tokens of prefixes."""
    shown = {"frames": 0, "prefilled": 0}
    encode, prefill = Engine.encode, Engine.prefill

    def count_frames(self: Engine, frames: Any) -> Any:
        shown["frames"] += len(frames)
        return encode(self, frames)

    def count_tokens(self: Engine, visual: Any, row: Any) -> Any:
        shown["prefilled"] += int((row["visual_index"] >= 0).sum())
        return prefill(self, visual, row)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "encode", count_frames)
        patch.setattr(Engine, "prefill", count_tokens)
        yield shown


def assert_at_most_what_a_dry_run_says(
    settings: RunConfig, prompts: list[str], shown: dict[str, int]
) -> None:
    """And not far from it: filters ended the way of some candidates."""
    store = FrameStore.open(settings.folder("frames"))
    model = find_model(None, settings.checkpoint).config
    chip = parse_slice("v5e:1x1").chip
    cost = curation_cost(settings.curate, store, model, answer_tokens=24, chip=chip)
    assert shown["frames"] * model.tokens_per_frame == cost.visual_tokens
    assert cost.prefill_tokens / 3 <= shown["prefilled"] <= cost.prefill_tokens
    first = Counter(stage_of(prompt) for prompt in prompts if not prompt.endswith(AGAIN))
    assert first["captions"] == cost.calls["captions"]
    for stage in ("questions", "verdicts"):  # equal prompts are sent once
        assert 0 < first[stage] <= cost.calls[stage]


def test_another_price_or_number_of_tries_asks_nothing_again(stored: Path, tmp_path: Path) -> None:
    store, prompt = FrameStore.open(stored / "frames"), TextPrompt(video_id="", text="say it")
    with serve(reply) as server:
        for changes in ({}, {"price_out": 5.0}, {"retries": 9}, {"timeout": 9.0}):
            told = {f"curate.endpoint.{name}": value for name, value in changes.items()}
            overrides = options(tmp_path, server.url, **told)
            settings = read_settings(load_config("demo", overrides))
            players = Players(settings, store, policy=None)  # type: ignore[arg-type]
            assert players.text_model("judge").complete([prompt]) == [reply(prompt.text)]
        assert server.requests == 1 and "1 answers from the cache" in players.told()[0]


def settings_of(stored: Path, run_dir: Path, server: Loopback) -> RunConfig:
    overrides = options(run_dir, server.url, frames_dir=f"{stored}/frames")
    return read_settings(load_config("demo", overrides))


def stage_of(prompt: str) -> str:
    """What a prompt is for."""
    if "Answer 1:" in prompt:
        return "verdicts"
    return "questions" if '"question"' in prompt else "captions"


def start_curating(stored: Path, run_dir: Path, server: Loopback) -> subprocess.Popen:
    """`tpo curate` in a process of its own."""
    arguments = options(run_dir, server.url, frames_dir=f"{stored}/frames")
    command = [sys.executable, "-m", "tpo_jax.cli.main", "curate", *arguments]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet)


def kill_after_answers(process: subprocess.Popen, run_dir: Path, videos: int) -> None:
    """Kills it once that many videos have their answers on disk."""
    ledger = run_dir / "curation" / "answers.jsonl"
    while process.poll() is None:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= videos:
            process.kill()
            return
        time.sleep(0.001)


def test_a_dry_run_tells_the_cost_and_asks_nobody(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["curate", "--dry-run", *options(stored, "http://127.0.0.1:9/v1")]
    assert main([*arguments, "--topology=v5e:2x2"]) == 0
    said = capsys.readouterr().out
    for text in ("videos; calls at most:", "visual tokens encoded", "chip-hours", "v5e:2x2"):
        assert text in said
    assert "go to an endpoint" in said and "at most by the prices" in said
    assert not (stored / "pairs").exists() and not (stored / "curation").exists()
    assert main([*arguments, "--topology=v5e:7x7x7"]) == 2
    assert "v5e:7x7x7" in capsys.readouterr().err


def test_each_round_begins_with_what_the_one_before_exported(tmp_path: Path) -> None:
    settings = read_settings(load_config("demo", [f"--config.run_dir={tmp_path}"]))
    rounds = list(round_settings(settings, 3))
    assert [each.curate.round for each in rounds] == [0, 1, 2]
    assert [Path(each.run_dir).name for each in rounds] == ["round_0", "round_1", "round_2"]
    assert rounds[0].checkpoint == settings.checkpoint
    for before, after in zip(rounds, rounds[1:], strict=False):
        assert after.checkpoint == str(before.folder("export"))
    assert {each.folder("frames") for each in rounds} == {tmp_path / "frames"}
    assert len({each.curate.seed for each in rounds}) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds=0"], "--rounds=0: must be 1 or more"),
        (["--rounds=1", '--config.mixture=("a.jsonl",)'], "config.mixture names pairs"),
    ],
)
def test_a_loop_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["loop", *arguments, f"--config.run_dir={tmp_path}"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_two_rounds_and_one_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_videos(tmp_path / "videos", tmp_path / "truth.json", count=8, events=(5, 6), seed=2)
    arguments = [
        "loop",
        f"--config.run_dir={tmp_path}/run",
        f"--config.videos={tmp_path}/videos",
        "--config.workers=1",
        "--config.train.steps=2",
        "--config.train.batch_pairs=8",
        "--config.curate.pairs=16",
        "--config.mesh.data=8",
        "--config.mesh.fsdp=1",
    ]
    assert main([*arguments, "--rounds=1"]) == 0
    first = (tmp_path / "run" / "round_0" / "train" / "manifest.json").read_bytes()
    assert main([*arguments, "--rounds=2"]) == 0
    assert (tmp_path / "run" / "round_0" / "train" / "manifest.json").read_bytes() == first
    for number in range(2):
        pairs = read_pairs(tmp_path / "run" / f"round_{number}" / "pairs" / "pairs.jsonl")
        assert pairs and {pair.round for pair in pairs} == {number}
    # The second round's answers are those of what the first exported.
    exported = read_manifest(tmp_path / "run" / "round_1" / "pairs", "pairs")["made_from"]["model"]
    assert {pair.generator for pair in pairs} == {f"export@{exported}"}
    assert "round 1: " in capsys.readouterr().out
