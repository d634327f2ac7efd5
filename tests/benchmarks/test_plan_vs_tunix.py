"""The plan beside Tunix: mistakes on the command line, and what the other side is asked for."""

import ast
import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed import plan_vs_tunix
from tpo_jax.planning.hardware import parse_slice

SAID = {
    "versions": {"jax": "1"},
    "beside": {"mask": 3 * 2**30, "reference": 2**30},
    "refused": None,
    "alive": 5 * 2**30,
    "argument": 10 * 2**30,
    "output": 9 * 2**30,
    "alias": 8 * 2**30,
    "temp": 2**30,
    "seconds": {"lower": 1.0, "compile": 2.0},
}


def other_python(folder: Path, body: str) -> str:
    """A program that stands for the other interpreter."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def no_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_vs_tunix, "check_compiler", lambda: None)

    def refuse(*_: object) -> None:
        raise AssertionError("compiled in spite of a mistake")

    monkeypatch.setattr(plan_vs_tunix, "compile_ours", refuse)
    monkeypatch.setattr(plan_vs_tunix, "compile_peer", refuse)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--tunix-python"),
        (["--pairs=none"], "whole number"),
        (["--pairs=63"], "63"),
        (["--topology=v9"], "v9"),
        (["--topology=2xv5p-128", "--pairs=128"], "one slice"),
        (["--answer-tokens=500"], "multiple of 512"),
        (["--only=nothing"], "no row"),
        ([f"--tunix-python={sys.executable}-not"], "No such file"),
        ([], "google-tunix"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    given: list[str],
    said: str,
    no_compile: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if said != "--tunix-python":
        bare = other_python(tmp_path, "print(['tunix'])")
        given = [f"--tunix-python={bare}", *given]
    monkeypatch.setattr(sys, "argv", ["plan_vs_tunix", *given])
    assert plan_vs_tunix.main() == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_other_interpreter_is_asked_for_the_same_work(tmp_path: Path) -> None:
    body = f"open({str(tmp_path / 'asked')!r}, 'w').write(sys.stdin.read())\n"
    body += f"open(sys.argv[2], 'w').write({json.dumps(SAID)!r})"
    arguments = plan_vs_tunix.read_arguments([f"--tunix-python={other_python(tmp_path, body)}"])
    row = next(row for row in plan_vs_tunix.ROWS if row.name == "Tunix")
    found = plan_vs_tunix.compile_peer(row, arguments, parse_slice(arguments.topology))
    asked = json.loads((tmp_path / "asked").read_text())
    work = plan_vs_tunix.our_work(arguments)
    assert asked["topology"] == "v5p:4x4x4"
    for name in ("pairs", "prompt_tokens", "answer_tokens"):
        assert asked[name] == getattr(work, name)
    assert asked["layers"] == work.config.language.layers
    # Rows of 27,648 + 512 tokens are no multiple of Tunix's usual block.
    assert asked["block"] == 512
    assert plan_vs_tunix.cells(row, found, arguments.pairs) == [
        *("Tunix", "float32", "128", "5.0", "12.0", "4.0", "1", "2")
    ]


def test_the_other_half_imports_nothing_of_this_project() -> None:
    tree = ast.parse(plan_vs_tunix.PEER_STEP.read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert "tunix" in names
    assert not names & {"tpo_jax", "data_pipelines", "benchmarks", "."}
