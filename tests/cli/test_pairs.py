"""`tpo pairs`: counts, conversion there and back, the page, the data set, and refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds

from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.pairs import Pair, read_pairs, write_pairs
from data_pipelines.sampling import FramePolicy
from data_pipelines.synthetic import write_videos
from tpo_jax.api import find_checkpoint
from tpo_jax.cli.main import main

PAIR = Pair(
    id="a",
    video_id="",
    granularity="localized",
    kind="motion",
    question="Which way do the stars move?",
    chosen="The stars move up.",
    rejected="The stars move left.",
    negative="irrelevant",
    chosen_frames=[1],
    rejected_frames=[0],
    segment=[1.0, 2.0],
    generator="demo@12",
    sampling={},
    judge="rules",
    source="drawn",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, their frames, a tokenizer, and four pairs of which two are of no use."""
    root = tmp_path_factory.mktemp("pairs")
    write_videos(root / "videos", root / "truth.json", count=2, events=(2, 2), seed=5)
    build_store(
        sorted((root / "videos").iterdir()),
        root / "frames",
        frame_policy=FramePolicy(fps=1.0),
        image_policy=ImagePolicy(size=16),
    )
    first, second = FrameStore.open(root / "frames").videos
    pair = replace(PAIR, video_id=first)
    pairs = [
        pair,
        replace(pair, id="b", video_id=second, licence="CC0"),
        replace(pair, id="c"),
        # Other text, the same tokens: the tokenizer below puts accents together.
        replace(pair, id="d", chosen="caf\u00e9", rejected="cafe\u0301"),
    ]
    write_pairs(root / "pairs.jsonl", pairs)
    base = Path(str(find_checkpoint("demo_base")))
    (root / "base").mkdir()
    (root / "base" / "config.json").write_bytes((base / "config.json").read_bytes())
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    (root / "base" / "tokenizer.json").write_text(
        json.dumps(tokenizer | {"normalizer": {"type": "NFC"}})
    )
    return root


def counts(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["pairs", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["pairs", *map(str, arguments)]) == 2
    *before, last = capsys.readouterr().err.splitlines()
    assert last.startswith("tpo pairs: error: ")
    assert all(line.startswith(("warning: ", "left out: ")) for line in before)
    return last


def test_it_counts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / "pairs.jsonl"
    plain = counts(capsys, file)
    assert plain["format"] == "ours"
    assert (plain["rows"], plain["videos"], plain["duplicates"]) == (4, 2, 1)
    assert plain["identical_tokens"] is None and plain["unit"] == "words"
    tokens = counts(capsys, file, f"--checkpoint={root / 'base'}")
    assert tokens["identical_tokens"] == 1 and tokens["unit"] == "tokens"
    assert main(["pairs", str(file)]) == 0
    text = capsys.readouterr().out
    assert "localized" in text and "█" in text and "licence: unknown (3), CC0 (1)" in text


@pytest.mark.parametrize("name", ["llava_next", "ms_swift"])
@pytest.mark.parametrize("place", ["videos", "frames"])
def test_pairs_go_there_and_back(
    root: Path, tmp_path: Path, name: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = f"--videos={root / place}"
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.jsonl"
    to = [f"--to={name}", f"--out={theirs}", f"--checkpoint={root / 'base'}", "--licence=MIT"]
    assert main(["pairs", str(root / "pairs.jsonl"), videos, *to]) == 0
    err = capsys.readouterr().err
    assert "left out: 1 pairs saying the same" in err and "1 pairs whose chosen" in err
    assert "warning" not in err
    assert main(["pairs", str(theirs), videos, "--to=ours", f"--out={ours}"]) == 0
    back, pairs = read_pairs(ours), read_pairs(root / "pairs.jsonl")[:2]
    kept = ("id", "video_id", "granularity", "question", "chosen", "rejected", "generator")
    for one, other in zip(back, pairs, strict=True):
        assert [getattr(one, key) for key in kept] == [getattr(other, key) for key in kept]
    assert [pair.licence for pair in back] == ["MIT", "CC0"]


def test_what_is_unknown_is_warned_of(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["pairs", str(root / "pairs.jsonl"), "--to=ours", f"--out={out}"]) == 0
    assert "warning: 2 of 3 pairs do not say their licence" in capsys.readouterr().err
    told = ["--to=ours", f"--out={tmp_path / 'told.jsonl'}", "--licence=MIT"]
    assert main(["pairs", str(root / "pairs.jsonl"), *told]) == 0
    assert [pair.licence for pair in read_pairs(tmp_path / "told.jsonl")] == ["MIT", "CC0", "MIT"]
    table = tmp_path / "a.csv"
    table.write_text("file,prompt,chosen,score\ntrain_0000.mp4,Why?,So.,3\n")
    arguments = [str(table), "--columns=video=file,rejected=", "--json"]
    capsys.readouterr()
    assert main(["pairs", *arguments]) == 0
    said = capsys.readouterr()
    assert "not read: score (1 of 1 rows)" in said.err
    assert json.loads(said.out)["without_rejected"] == 1


def test_the_page_and_the_ids_it_saves(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, file = tmp_path / "page.html", root / "pairs.jsonl"
    frames = f"--videos={root / 'frames'}"
    assert main(["pairs", str(file), frames, f"--html={page}", "--show=2"]) == 0
    text = page.read_text()
    assert text.count('type="checkbox"') == 2 and text.count("data:image/jpeg") == 4
    assert "2 of 3 pairs" in text
    ids = tmp_path / "bad_ids.txt"
    ids.write_text("a\nb\n")
    assert counts(capsys, file, f"--without={ids}")["rows"] == 2
    ids.write_text("a\nx\n")
    assert "1 of 2 ids are of no pair" in refused(capsys, file, f"--without={ids}")
    assert "cannot be read" in refused(capsys, file, f"--without={tmp_path / 'none'}")
    assert "exists already" in refused(capsys, file, frames, f"--html={page}")


def test_the_data_set(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = counts(capsys, root / "pairs.jsonl", f"--tfds={tmp_path}")
    assert found["rows"] == 4
    records = tfds.data_source("tpo_pairs", data_dir=tmp_path, split="train")
    assert [record["id"] for record in records] == [b"a", b"b", b"d"]
    assert "exists already" in refused(capsys, root / "pairs.jsonl", f"--tfds={tmp_path}")


def test_mistakes_are_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "pairs.jsonl"
    out = tmp_path / "out.jsonl"
    swift = tmp_path / "swift.jsonl"
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    swift.write_text(json.dumps({"messages": said, "videos": ["x.mp4"]}) + "\n")
    convert = f"--out={out}"
    for arguments, message in (
        ([tmp_path / "none"], "cannot be read"),
        ([file, "--from=trl"], "pairs.jsonl:1: 'prompt' is no list"),
        ([file, "--columns=video=a"], "--columns is for csv, this is ours"),
        ([swift, "--from=trl", "--columns=video=a"], "--columns is for csv"),
        ([file, "--columns=a"], "no FIELD=COLUMN"),
        ([file, "--to=ours"], "--to and --out go together"),
        ([file, convert], "--to and --out go together"),
        ([file, "--to=trl", convert], "invalid choice"),
        ([file, "--to=ours", f"--out={file}"], "exists already"),
        ([file, "--to=ms_swift", convert], "--videos=FOLDER"),
        ([swift, "--to=ours", convert], "--videos=FOLDER"),
        ([swift, "--tfds", tmp_path / "data"], "--videos=FOLDER"),
        ([swift, f"--videos={root / 'videos'}"], "swift.jsonl:1: the video is 'x.mp4'"),
        ([file, f"--videos={tmp_path}"], "no video in this folder"),
        ([file, f"--html={out}"], "--html needs frames"),
        ([file, f"--html={out}", f"--videos={root / 'videos'}"], "--html needs frames"),
        ([file, "--show=0"], "--show=0"),
        ([file, "--checkpoint=nothing"], "no checkpoint here"),
    ):
        assert message in refused(capsys, *arguments), arguments
    assert [one.name for one in tmp_path.iterdir()] == ["swift.jsonl"]


def test_pairs_about_other_videos_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    write_pairs(other, [replace(PAIR, video_id="ab")])
    for place in ("videos", "frames"):
        line = refused(capsys, other, f"--videos={root / place}")
        assert "other.jsonl:1: no file of" in line and "'ab'" in line
