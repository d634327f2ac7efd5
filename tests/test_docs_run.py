"""The ways through the docs, walked on the demo's tiny model: each command as it is written there.

Names that stand for the reader's own (buckets, folders, a config) are put in; `SMALL` makes the
work small. Commands that need a TPU's compiler, the network or published data are left out by name.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from data_pipelines.synthetic import write_videos
from tests.golden_maker import CaseSettings, write_case
from tests.parallel.processes import MAIN, run_processes
from tests.test_docs_commands import ROOT, calls, commands
from tpo_jax.api import ASSETS
from tpo_jax.cli.main import VERBS, main
from tpo_jax.training.run_log import read_metrics

pytestmark = pytest.mark.slow

SMALL = {
    "curate.pairs": 8,
    "curate.comprehensive_per_video": 2,
    "train.epochs": 1,
    "train.steps": 2,
    "train.batch_pairs": 8,
    "train.accumulate": 1,
    "workers": 1,
}
PAIRS_OF_OTHERS = """[{"id": "one", "video": "some.mp4", "prompt": "What comes first?",
  "chosen": "Red thing.", "rejected": "Blue thing."}]"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a few videos and, under its published name, a model."""
    monkeypatch.chdir(tmp_path)
    write_videos(tmp_path / "videos", tmp_path / "truth.json", count=4, events=(6, 6), seed=5)
    shutil.copy(tmp_path / "videos" / "videos_0000.mp4", tmp_path / "videos" / "some.mp4")
    shutil.copytree(ASSETS / "demo_base", tmp_path / "LLaVA-Video-7B-Qwen2")
    return tmp_path


def written(page: str, heading: str) -> tuple[str, list[list[str]]]:
    """A section of a page, and the words of every indented `tpo` command in it."""
    text = (ROOT / page).read_text("utf-8")
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    lines = [line for line in commands(section) if line.startswith("    ")]
    found: list[list[str]] = []
    for call in [call for line in lines for call in calls(line)]:
        if found and found[-1] == ["launch"]:
            found[-1] += ["--", *call]  # one command, of which `calls` makes two
        else:
            found.append(call)
    return section, found


def walk(found: Sequence[Sequence[str]], names: Mapping[str, str], more: Sequence[str]) -> None:
    """Run the commands, one after another, with names put in and options added to config verbs."""
    for words in found:
        for name, own in names.items():
            words = [word.replace(name, own) for word in words]
        words = [*words, *(more if VERBS[words[0]].takes_config else ())]
        assert main(words) == 0, words


def test_your_own_videos(place: Path) -> None:
    section, found = written("README.md", "Your own videos")
    verbs = "frames frames curate curate reference train train export ask ask pairs pairs train"
    assert " ".join(words[0] for words in found) == verbs
    more = [f"--config.{key}={value}" for key, value in SMALL.items()]
    walk(found[:10], {}, more)
    (place / "theirs.json").write_text(PAIRS_OF_OTHERS)
    (place / "bad_ids.txt").write_text("")
    walk(found[10:12], {}, [])
    # "after tpo reference with the same"; a finished run is not trained again with other pairs.
    (mixture,) = [word for word in found[12] if "mixture" in word]
    again = [mixture, "--config.run_dir=runs/again", "--config.frames_dir=runs/mine/frames", *more]
    walk([["reference", "--config=own_videos"], found[12]], {}, again)
    assert (place / "runs/again/train/manifest.json").exists()
    assert (place / "look.html").exists()
    assert "runs/mine/curation.html" in section and (place / "runs/mine/curation.html").exists()


def test_a_checkpoint_in_and_out(place: Path) -> None:
    _, found = written("README.md", "A LLaVA-Video, LLaVA-OneVision or LongVA checkpoint")
    assert [words[0] for words in found] == ["import", "export", "export", "verify"]
    write_case(place / "CASE", CaseSettings())
    names = {"FOLDER": "LLaVA-Video-7B-Qwen2", "gs://bucket/": ""}
    walk(found[:2], names, [])
    ours, theirs = (place / one / "model.safetensors" for one in ("OUT", names["FOLDER"]))
    assert ours.read_bytes() == theirs.read_bytes()
    # The third wants a vocabulary with free rows: tests/cli/test_import_export.py has one.
    walk(found[3:], {}, [])


def test_videos_to_frames(place: Path) -> None:
    text = (ROOT / "docs/frames.md").read_text("utf-8").split("\n## ")[0]
    found = [call for line in commands(text) if line.startswith("    ") for call in calls(line)]
    assert len(found) == 3
    walk(found, {"VIDEOS": "videos"}, [])
    assert (place / "OUT" / "manifest.json").exists()


def test_the_plan_before_renting(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("libtpu")
    _, found = written("docs/tpu_pods.md", "What it will take")
    assert [words[0] for words in found] == ["plan"]
    more = ["--frames=4", "--config.train.batch_pairs=64"]
    walk(found, {"llava_video_7b_tpo": "own_videos"}, more)
    told = capfd.readouterr().out
    assert all(one in told for one in ("v6e:2x4", "v5e:2x4", "fits 0.9 of the chip", "chip-hours"))


def test_a_7b_on_one_host_and_on_two(place: Path) -> None:
    section, found = written("docs/tpu_pods.md", "A 7B on one host with eight chips")
    verbs = "doctor import doctor frames frames curate curate reference train launch export".split()
    assert [words[0] for words in found] == verbs
    bucket = place / "bucket"
    (place / "runs").mkdir()
    config = re.search(r"cat > runs/MINE.py <<'END'\n(.*?)\n    END", section, re.S)
    assert config is not None
    small = "".join(f"    config.{key} = {value}\n" for key, value in SMALL.items())
    body = re.sub(r"^    ", "", config[1], flags=re.M).replace("llava_video_7b_tpo", "own_videos")
    body = body.replace("    return config", small + "    return config")
    shutil.copytree(place / "videos", bucket / "videos")
    (place / "runs/MINE.py").write_text(body.replace("gs://BUCKET", str(bucket)))
    walk(found, {"gs://BUCKET": str(bucket)}, [])
    assert (bucket / "models/mine/model.safetensors").exists()
    assert (place / "runs/mine/train/manifest.json").exists()
    # A slice of several hosts: the same on each, here a process for a host.
    _, (launch,) = written("docs/tpu_pods.md", "A slice of several hosts")
    assert launch == ["launch", "--", "train", "--config=runs/MINE.py"]
    (place / "runs/mine/train").rename(place / "runs/mine/alone")
    run_processes(["-c", MAIN, *launch], processes=2)
    alone, both = (read_metrics(place / "runs/mine" / run) for run in ("alone", "train"))
    for one, other in zip(both, alone, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert (place / "runs/mine/logs/host_1.log").exists()
