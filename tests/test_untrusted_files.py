"""Files that somebody else wrote: nothing in them is run, and a fault in them is one line."""

import ast
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.artefacts import read_manifest, write_manifest
from data_pipelines.errors import InputError as DataInputError
from data_pipelines.frames import FrameStore, read_lines
from data_pipelines.json_text import parse_json
from data_pipelines.pairs import read_pairs
from data_pipelines.synthetic import read_truth
from tests.data_pipelines.pair_formats.test_formats import PAIR
from tpo_jax.errors import InputError
from tpo_jax.interop.orbax_tree import OrbaxTree, write_tree
from tpo_jax.preference.reference import read_table, write_part
from tpo_jax.training.run_log import METRICS_FILE, read_metrics

ROOT = Path(__file__).parents[1]
DEEP = "[" * 100_000
# Calls that run what a file says.
UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def refused(read: Callable[[], object], named: str) -> str:
    with pytest.raises((InputError, DataInputError)) as caught:
        read()
    assert named in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------ running


def unsafe_calls(source: str) -> list[str]:
    """What of a source may unpickle."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [name for name in names if name.split(".")[0] in UNSAFE]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in ("torch.load", "yaml.load", "eval") else []
            found += [
                f"{called}(allow_pickle)"
                for one in node.keywords
                if one.arg == "allow_pickle" and ast.unparse(one.value) != "False"
            ]
    return found


def test_the_product_never_unpickles() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("tpo_jax", "data_pipelines", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if unsafe_calls(path.read_text("utf-8"))
    }
    # A process and the child that it starts, through a pipe; and what makes the bad files.
    own_pipe = {"tpo_jax/planning/aot.py", "tpo_jax/planning/compiler.py"}
    assert found == own_pipe | {"benchmarks/reliability/mutations.py"}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "torch.load(x)", "np.load(x, allow_pickle=True)"],
)
def test_what_unpickles_is_found(source: str) -> None:
    assert unsafe_calls(source)


# ------------------------------------------------------------------------------------------- texts


def test_json_that_is_nested_too_deep() -> None:
    assert parse_json('{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(DEEP)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"question": 3}, "'question'"),
        ({"chosen": "\ud800"}, "'chosen'"),
        ({"id": None}, "'id'"),
        ({"granularity": "x"}, "localized"),
        ({"chosen_frames": [-1]}, "'chosen_frames'"),
        ({"segment": [float("nan"), 1]}, "'segment'"),
        ({"sampling": []}, "'sampling'"),
        ({"rejected": {}}, "'rejected'"),
        ({"round": "1"}, "'round'"),
    ],
)
def test_a_pair_of_wrong_values(change: dict, named: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = asdict(PAIR) | {"video_id": "a", "id": "other"}
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"id": "b"} | change) + "\n")
    assert named in refused(lambda: read_pairs(path), "pairs.jsonl:2")


@pytest.mark.parametrize("content", [b"\xff\xfe", DEEP.encode(), b"{}\n"])
def test_pairs_that_are_no_text(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    refused(lambda: read_pairs(path), "pairs.jsonl")


@pytest.mark.parametrize("content", ["text", "[]", '{"a": [{"event": {}}]}', DEEP])
def test_a_damaged_truth(content: str, tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(content)
    refused(lambda: read_truth(path), "truth.json")


@pytest.mark.parametrize("content", ["", "\n", "[1]\n", '{"step": "x"}\n', '{"step": 1}\n{}\n'])
def test_damaged_metrics(content: str, tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text(content)
    refused(lambda: read_metrics(tmp_path), METRICS_FILE)


def test_metrics_of_a_run_that_went_on_elsewhere(tmp_path: Path) -> None:
    """An older version wrote no times, and only some chips have an mfu."""
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "step_seconds": 0.5, "mfu": 0.4}]
    (tmp_path / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_metrics(tmp_path) == lines


# --------------------------------------------------------------------------------------- artefacts


@pytest.mark.parametrize(
    "change",
    [
        {"made_from": {"a": float("nan")}},
        {"made_from": []},
        {"format": "1"},
        {"scores": {"items": 4}},
        {"unknown": 1},
        {"fingerprint": None},
    ],
)
def test_a_manifest_that_was_changed(change: dict, tmp_path: Path) -> None:
    write_manifest(tmp_path, "eval", {"a": 1}, scores={"items": (3, 2)}, by={2: 1, 10: 0})
    path = tmp_path / "manifest.json"
    manifest = read_manifest(tmp_path, "eval")
    path.write_text(json.dumps(manifest | change))
    refused(lambda: read_manifest(tmp_path, "eval"), "manifest.json")


def test_a_manifest_without_a_fingerprint_of_what_it_tells(tmp_path: Path) -> None:
    write_manifest(tmp_path, "eval", {"a": 1}, scores={})
    manifest = read_manifest(tmp_path, "eval")
    del manifest["content"]  # as versions before had none
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert read_manifest(tmp_path, "eval")["scores"] == {}


def test_a_store_reads_no_shard_outside_of_it(tmp_path: Path) -> None:
    videos = [{"video_id": "a", "frames": 1, "shard": "../other/shard"}]
    write_manifest(tmp_path, "frames", {"encoding": "raw"}, videos=videos)
    refused(lambda: FrameStore.open(tmp_path), "../other/shard")


@pytest.mark.parametrize("content", ["{}\n", "[]\n", "x\n"])
def test_a_damaged_quarantine(content: str, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_text(content)
    refused(lambda: read_lines(path), "quarantine.jsonl")


# ------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize("how", ["text", "dtype", "object", "pickle", "bytes"])
def test_a_damaged_part_of_a_reference(how: str, tmp_path: Path) -> None:
    write_part(tmp_path, 0, ["a"], np.zeros((1, 2, 3)))
    assert set(read_table(tmp_path)) == {"a"}
    (path,) = tmp_path.iterdir()
    if how == "text":
        path.write_text("text")
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"ids": ["a"]}))
    elif how == "bytes":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    else:
        arrays = {"dtype": np.zeros((1, 2, 3)).astype(str), "object": np.array([None])}
        np.savez(path, ids=np.array(["a"]), logprobs=arrays[how])
    refused(lambda: read_table(tmp_path), "part-00000.npz")


def test_a_damaged_array_of_an_imported_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "part"
    write_tree(folder, {"a": np.arange(64, dtype=np.float32)})
    (stored,) = folder.glob("a/0")
    stored.write_bytes(b"\xff" * 8 + stored.read_bytes()[8:])
    refused(lambda: np.asarray(OrbaxTree(folder).leaves()["a"]), str(folder))
