"""Bad input in bulk: a part of `benchmarks/reliability/fuzz.py`, and that it sees what is wrong."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.reliability import fuzz_case
from benchmarks.reliability.fuzz_base import make_small_base
from benchmarks.reliability.fuzz_case import CRASHED, run_case
from benchmarks.reliability.fuzz_verbs import TARGETS
from benchmarks.reliability.mutations import damage
from tpo_jax.cli import doctor, frames

# Verbs that compile nothing, whatever they are given.
QUICK = ("frames", "pairs", "export", "import", "doctor", "plan")
CASES = 40


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "TIME_LIMIT", None)  # in this process: starting another takes seconds
        make_small_base(folder)
    return folder


@pytest.fixture
def targets(base: Path, monkeypatch: pytest.MonkeyPatch) -> list[fuzz_case.Target]:
    monkeypatch.setattr(frames, "TIME_LIMIT", None)
    checks = {name: doctor.CHECKS[name] for name in ("checkpoint", "free disk")}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    return [
        target
        for target in TARGETS
        if (target.verb[0] in QUICK or "--from-logs={case}/log.jsonl" in target.verb)
        and target.kind not in ("trained", "manifest")
        and all((base / name).exists() for name in target.copies)
    ]


def test_no_damaged_file_ends_badly(
    base: Path, targets: list[fuzz_case.Target], tmp_path: Path
) -> None:
    results = [run_case(number, 7, base, tmp_path, targets) for number in range(CASES)]
    assert [result for result in results if result.faults] == []
    assert {result.status for result in results} >= {0, 2}
    assert len({result.kind for result in results}) >= 8


def test_a_case_is_repeated_by_its_number(
    base: Path, targets: list[fuzz_case.Target], tmp_path: Path
) -> None:
    first, second = (run_case(3, 7, base, tmp_path, targets) for _ in range(2))
    assert (first.told, first.status, first.line) == (second.told, second.status, second.line)


@pytest.mark.parametrize("fault", ["raises", "opens", "unpickles", "half-written", "says nothing"])
def test_what_ends_badly_is_seen(
    fault: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target,) = [one for one in TARGETS if one.kind == "video" and one.verb == ("frames",)]
    top = tmp_path / "case_0"

    def verb(arguments: list[str]) -> int:
        if fault == "raises":
            raise KeyError("frames")
        if fault == "opens":
            (top / "outside" / "secret.mp4").read_bytes()
        if fault == "unpickles":
            (top / "outside" / "unpickled").mkdir()
        if fault == "half-written":
            (top / "case" / "run" / "frames").mkdir(parents=True)
        return 2 if fault == "says nothing" else 1

    monkeypatch.setattr(fuzz_case, "main", verb)
    result = run_case(0, 0, base, tmp_path, [target])
    assert len(result.faults) == 1, result
    assert (result.status == CRASHED) == (fault == "raises")


def test_damage_is_done(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for seed in range(50):
        path.write_text('{"a": [1, 2], "b": "text"}')
        before = path.read_bytes()
        damage(path, np.random.default_rng(seed), tmp_path)
        changed = not path.is_file() or path.read_bytes() != before
        assert changed, seed
        if path.is_dir():
            path.rmdir()
