"""The command line: verbs, options, overrides, exit statuses."""

import argparse
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import data_pipelines.errors
from tpo_jax import __version__
from tpo_jax.cli import main as main_module
from tpo_jax.cli.main import VERBS, Verb, main
from tpo_jax.errors import InputError

CONFIG_SOURCE = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({"train": {"steps": 100, "learning_rate": 3e-7}})
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Replaces the verbs by `train` (with a config) and `ask` (without); returns what they got."""
    (tmp_path / "small.py").write_text(CONFIG_SOURCE)
    monkeypatch.chdir(tmp_path)
    calls: list[tuple[Any, Any]] = []

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", nargs="*")
        parser.add_argument("--resume", action="store_true")

    module = types.ModuleType("fake_verb")
    module.__dict__.update(
        add_arguments=add_arguments, run=lambda args, config: calls.append((args, config))
    )
    monkeypatch.setitem(sys.modules, "fake_verb", module)
    verbs = {
        "train": Verb(module="fake_verb", summary="train it"),
        "ask": Verb(module="fake_verb", summary="ask it", takes_config=False),
    }
    monkeypatch.setattr(main_module, "VERBS", verbs)
    return calls


def test_overrides_reach_the_verb(seen: list[tuple[Any, Any]]) -> None:
    arguments = ["--config.train.steps=5", "--config", "small", "--resume", "word"]
    assert main(["train", *arguments, "--config.train.learning_rate", "1e-6"]) == 0
    ((args, config),) = seen
    assert args.resume
    assert args.words == ["word"]
    assert config.train.steps == 5
    assert config.train.learning_rate == 1e-6


def test_a_negative_value_may_stand_apart(seen: list[tuple[Any, Any]]) -> None:
    assert main(["train", "--config=small", "--config.train.steps", "-1"]) == 0
    assert seen[0][1].train.steps == -1


def test_a_verb_without_a_config_gets_none(seen: list[tuple[Any, Any]]) -> None:
    assert main(["ask", "video.mp4", "who?"]) == 0
    assert seen[0][1] is None
    assert not hasattr(seen[0][0], "config")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "tpo: error: unknown verb trian; did you mean train?"),
        (["train", "--rsume"], "tpo train: error: unknown option --rsume; did you mean --resume?"),
        (
            ["train", "--confg.train.steps=5"],
            "tpo train: error: unknown option --confg.train.steps=5; "
            "did you mean --config.train.steps=5?",
        ),
        (
            ["train", "--train.steps=5"],
            "tpo train: error: unknown option --train.steps=5; "
            "did you mean --config.train.steps=5?",
        ),
        (
            ["train", "--config.train.steps"],
            "tpo train: error: --config.train.steps needs a value: --config.train.steps=VALUE",
        ),
        (
            ["train", "--config=small", "--config.train.stps=5"],
            "tpo train: error: unknown config key train.stps; did you mean train.steps?",
        ),
        (
            ["train", "--resume=yes"],
            "tpo train: error: argument --resume: ignored explicit argument 'yes' "
            "(tpo train --help lists the options)",
        ),
        (
            ["ask", "--resum", "word"],
            "tpo ask: error: unknown option --resum; did you mean --resume?",
        ),
        (["--versoin"], "tpo: error: unknown option --versoin; did you mean --version?"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    seen: list[tuple[Any, Any]],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == expected + "\n"
    assert not seen


def test_a_verb_behind_an_option_does_not_run(seen: list[tuple[Any, Any]]) -> None:
    assert main(["--", "train"]) == 2
    assert not seen


def raising(error: BaseException) -> Callable[[Any, Any], None]:
    def run(args: Any, config: Any) -> None:
        raise error

    return run


@pytest.mark.parametrize("error_type", [InputError, data_pipelines.errors.InputError])
def test_both_input_errors_are_one_line(
    seen: list[tuple[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error_type: type[ValueError],
) -> None:
    monkeypatch.setattr(sys.modules["fake_verb"], "run", raising(error_type("a.mp4:\nempty")))
    assert main(["ask"]) == 2
    assert capsys.readouterr().err == "tpo ask: error: a.mp4: empty\n"


def test_an_interrupt_says_how_to_go_on(
    seen: list[tuple[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.modules["fake_verb"], "run", raising(KeyboardInterrupt()))
    assert main(["ask"]) == 130
    assert "tpo ask: interrupted; running the same command again" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(
    seen: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fake_verb"], "run", raising(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        main(["ask"])


def test_help_of_a_verb_shows_its_options_and_the_config(
    seen: list[tuple[Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for expected in ("train it", "--resume", "--config FILE", "configs/demo.py", "--config.KEY"):
        assert expected in shown


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert name in shown
        assert verb.summary.split()[0] in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"tpo_jax {__version__}\n"


def test_help_imports_no_jax() -> None:
    script = (
        "import contextlib, sys\n"
        "from tpo_jax.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "heavy = {'jax', 'flax', 'numpy', 'grain', 'ml_collections'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
