"""`tpo verify`: the verdict as an exit status, the JSON object, and folders that are no case."""

import argparse
import json
import shutil
import sys
import types
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.quick_compile import QUICK
from tpo_jax.cli import main as main_module
from tpo_jax.cli import verify
from tpo_jax.cli.main import Verb, main
from tpo_jax.interop.golden_case import OUTPUTS

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.golden_maker import CaseSettings, write_case  # noqa: E402

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = CaseSettings(newline="frame", pool="average", image_size=56, seed=4)
    return write_case(tmp_path_factory.mktemp("made") / "case", settings)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("measure", "measure_layers"):
        function = partial(getattr(verify, name), compiler_options=QUICK)
        monkeypatch.setattr(verify, name, function)


def changed_arrays(folder: Path, file: str, **arrays: Any) -> None:
    """Rewrites an npz with other arrays; None takes one out."""
    content = dict(np.load(folder / file)) | arrays
    np.savez(folder / file, **{k: v for k, v in content.items() if v is not None})


def larger_bias(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.mm_projector.2.bias"][0] += 0.01
    save_file(tensors, folder / "model.safetensors")


# -------------------------------------------------------------------------------- verdicts


def test_a_good_case_is_status_0(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(made)]) == 0
    shown = capsys.readouterr().out
    # Piped: names are whole, however wide the terminal is.
    for name in (*OUTPUTS, *load_file(made / "grads.safetensors")):
        assert f" {name} " in shown
    assert "FAIL" not in shown
    assert "zero but for rounding" in shown
    assert shown.rstrip().endswith("inside their tolerances")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(larger_bias, "visual_tokens", id="weight"),
        pytest.param(
            lambda f: changed_arrays(f, "inputs.npz", beta=np.float64(0.9)),
            "dpo_loss",
            id="beta",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda f: changed_arrays(
                f, "inputs.npz", frames=255 - np.load(f / "inputs.npz")["frames"]
            ),
            "vision_features",
            id="frames",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_number_outside_is_status_1(
    change: Change, named: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "case"
    shutil.copytree(made, folder)
    change(folder)
    assert main(["verify", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "OUTSIDE their tolerances" in captured.out
    failed = [line for line in captured.out.splitlines() if " FAIL " in line]
    assert any(f" {named} " in line for line in failed)


def test_json_is_all_that_is_printed(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "case"
    shutil.copytree(made, folder)
    grads = load_file(folder / "grads.safetensors")
    save_file(grads | {"model.of_nobody": np.ones(2, np.float32)}, folder / "grads.safetensors")
    assert main(["verify", str(folder), "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    content = json.loads(line, parse_constant=pytest.fail)
    assert content["case"] == str(folder)
    assert (content["dtype"], content["passed"]) == ("float32", False)
    assert "1 of" in content["verdict"] and "model.of_nobody" in content["verdict"]
    rows = {row["name"]: row for row in content["rows"]}
    assert rows.keys() >= {*OUTPUTS, *grads}
    (failed,) = [row for row in rows.values() if not row["passed"]]
    assert failed["name"] == "model.of_nobody"
    assert failed["max_abs"] is None
    for row in rows.values():
        assert set(row) == {"name", "max_abs", "relative", "tolerance", "of", "note", "passed"}
    assert rows["loss"]["max_abs"] <= rows["loss"]["tolerance"] == 1e-5


def test_bf16_against_fp32(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(made), "--dtype=bfloat16", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    logits = next(row for row in content["rows"] if row["name"] == "logits")
    assert 0.001 < logits["rms_relative"] < 0.05
    monkeypatch.setattr(verify, "BF16_LOGITS_BOUND", logits["rms_relative"] / 2)
    assert main(["verify", str(made), "--dtype", "bfloat16"]) == 1
    shown = capsys.readouterr().out
    assert "decoder layer 1" in shown
    assert "NOT inside" in shown


def test_the_status_of_a_verb_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fake_verb")
    monkeypatch.setitem(sys.modules, "fake_verb", module)
    verb = Verb(module="fake_verb", summary="fake", takes_config=False)
    monkeypatch.setattr(main_module, "VERBS", {"fake": verb})

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        pass

    for returned, status in ((None, 0), (0, 0), (1, 1)):
        module.__dict__.update(
            add_arguments=add_arguments, run=lambda args, config, value=returned: value
        )
        assert main(["fake"]) == status


# ------------------------------------------------------------------- folders that are no case


def write(name: str, content: bytes | None) -> Change:
    """A change of one file; None deletes it."""

    def change(folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return change


def arrays(file: str, **changed: Any) -> Change:
    return lambda folder: changed_arrays(folder, file, **changed)


def pickled(folder: Path) -> None:
    np.savez(folder / "inputs.npz", frames=np.array([{"a": 1}], dtype=object))


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def cut(name: str) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def single_array(folder: Path) -> None:
    with (folder / "inputs.npz").open("wb") as file:
        np.save(file, np.zeros(3))


def broken_header(folder: Path) -> None:
    header = b"{'descr': ((\n"
    with zipfile.ZipFile(folder / "inputs.npz", "w") as file:
        start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        file.writestr("frames.npy", start + header)


def config(**changed: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | changed
        (folder / "config.json").write_text(json.dumps(content))

    return change


def grads(**changed: np.ndarray) -> Change:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "grads.safetensors")
        save_file(tensors | changed, folder / "grads.safetensors")

    return change


def fewer_rows(folder: Path) -> None:
    tensors = load_file(folder / "reference.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        tensors[name] = tensors[name][:-1].copy()
    save_file(tensors, folder / "reference.safetensors")


FRAMES = np.zeros((2, 56, 56, 3), np.uint8)
BAD: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no config": (write("config.json", None), ("config.json",)),
    "no weights": (write("model.safetensors", None), ("model.safetensors",)),
    "no reference": (write("reference.safetensors", None), ("reference.safetensors",)),
    "no inputs": (write("inputs.npz", None), ("inputs.npz",)),
    "no outputs": (write("outputs.npz", None), ("outputs.npz",)),
    "no gradients": (write("grads.safetensors", None), ("grads.safetensors",)),
    "empty npz": (write("inputs.npz", b""), ("inputs.npz",)),
    "npz is text": (write("outputs.npz", b"hello" * 99), ("outputs.npz",)),
    "npz cut off": (cut("inputs.npz"), ("inputs.npz",)),
    "one array": (single_array, ("inputs.npz", "single array")),
    "broken header": (broken_header, ("inputs.npz", "frames")),
    "pickled": (pickled, ("inputs.npz", "frames")),
    "gradients cut off": (cut("grads.safetensors"), ("grads.safetensors",)),
    "reference cut off": (cut("reference.safetensors"), ("reference.safetensors",)),
    "reference of other rows": (fewer_rows, ("reference.safetensors", "61", "60")),
    "config unknown": (config(mm_vision_towr="x"), ("config.json", "mm_vision_towr")),
    "no beta": (arrays("inputs.npz", beta=None), ("inputs.npz", "beta")),
    "beta negative": (arrays("inputs.npz", beta=-0.1), ("inputs.npz", "beta", "-0.1")),
    "beta a word": (arrays("inputs.npz", beta=np.array("big")), ("inputs.npz", "beta")),
    "gamma is two": (arrays("inputs.npz", gamma=np.ones(2)), ("inputs.npz", "gamma", "[2]")),
    "frames float": (
        arrays("inputs.npz", frames=FRAMES.astype(float)),
        ("inputs.npz", "frames", "uint8"),
    ),
    "frames of another size": (
        arrays("inputs.npz", frames=FRAMES[:, :40]),
        ("inputs.npz", "frames", "[2, 40, 56, 3]", "[F, 56, 56, 3]"),
    ),
    "no frame": (arrays("inputs.npz", frames=FRAMES[:0]), ("inputs.npz", "frames")),
    "one frame more": (
        arrays("inputs.npz", frames=np.concatenate([FRAMES, FRAMES[:1]])),
        ("outputs.npz", "vision_features", "[2, 16, 32]", "[3, 16, 32]"),
    ),
    "prompt without video": (
        arrays("inputs.npz", prompt=np.arange(5)),
        ("inputs.npz", "prompt", "-200", "0 times"),
    ),
    "prompt with two": (
        arrays("inputs.npz", prompt=np.array([1, -200, 2, -200, 3])),
        ("inputs.npz", "prompt", "-200", "2 times"),
    ),
    "prompt id negative": (
        arrays("inputs.npz", prompt=np.array([1, -200, -1])),
        ("inputs.npz", "prompt", "-1"),
    ),
    "prompt of floats": (arrays("inputs.npz", prompt=np.ones(4)), ("inputs.npz", "prompt")),
    "answer beyond the rows": (
        arrays("inputs.npz", chosen=np.array([3, 61])),
        ("inputs.npz", "chosen", "61"),
    ),
    "answer empty": (
        arrays("inputs.npz", rejected=np.zeros(0, int)),
        ("inputs.npz", "rejected"),
    ),
    "answer 2-D": (
        arrays("inputs.npz", rejected=np.zeros((2, 2), int)),
        ("inputs.npz", "rejected", "[2, 2]"),
    ),
    "no logits": (arrays("outputs.npz", chosen_logits=None), ("outputs.npz", "chosen_logits")),
    "logits of another length": (
        arrays("outputs.npz", rejected_logits=np.zeros((3, 61))),
        ("outputs.npz", "rejected_logits", "[3, 61]", "[7, 61]"),
    ),
    "visual tokens of another pool": (
        config(mm_newline_position="grid"),
        ("outputs.npz", "visual_tokens", "[10, 48]", "[12, 48]"),
    ),
    "loss not finite": (arrays("outputs.npz", loss=np.nan), ("outputs.npz", "loss", "finite")),
    "gradient of another shape": (
        grads(**{"model.norm.weight": np.zeros(3, np.float32)}),
        ("grads.safetensors", "model.norm.weight", "[3]", "[48]"),
    ),
    "gradient not finite": (
        grads(**{"model.norm.weight": np.full(48, np.inf, np.float32)}),
        ("grads.safetensors", "model.norm.weight", "finite"),
    ),
    "gradient an integer": (
        grads(**{"model.norm.weight": np.zeros(48, np.int32)}),
        ("grads.safetensors", "model.norm.weight", "I32"),
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_folder_is_one_line_and_status_2(
    fault: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, named = BAD[fault]
    folder = tmp_path / "case"
    shutil.copytree(made, folder)
    change(folder)
    assert main(["verify", str(folder), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"tpo verify: error: {folder}/{named[0]}")
    for part in named:
        assert part in line


def test_nothing_is_unpickled(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    shutil.copytree(made, folder)
    content = dict(np.load(folder / "inputs.npz"))
    extra = np.array([Touch(tmp_path / "touched")], dtype=object)
    np.savez(folder / "inputs.npz", extra=extra, **content)
    assert main(["verify", str(folder)]) == 2
    assert not (tmp_path / "touched").exists()


def test_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert str(tmp_path / "nowhere") in capsys.readouterr().err
    assert main(["verify"]) == 2
    assert "CASE" in capsys.readouterr().err
    assert main(["verify", str(tmp_path), "--dtype=float16"]) == 2
    assert "float16" in capsys.readouterr().err
