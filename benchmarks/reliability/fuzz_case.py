"""One case of `fuzz.py`: damages a copy, runs a verb on it in this process, and judges it."""

import ctypes
import gc
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from benchmarks.reliability.fuzz_base import run_arguments, settings_text
from benchmarks.reliability.fuzz_verbs import TARGETS, Target
from benchmarks.reliability.mutations import OUTSIDE, UNPICKLED, damage, damage_bytes
from data_pipelines.artefacts import MANIFEST_NAME
from tpo_jax.cli.config import load_config
from tpo_jax.cli.main import main

CRASHED = -1
IN_OPEN = 0x20
# Where these are too large, the run is as long or as large as it was asked to be.
VALUES = ("-1", "0", "1", "7", "1.5", "nan", "inf", "-1e300", "", "x", "None", "True", "()", "(1,)",
          "('x',)", "[]", "{'a': 1}", "-9223372036854775809", "\0", "../outside")  # fmt: skip
NOT_SET = ("run_dir",)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a case.

    Attributes:
      number: of the case.
      kind: of input, and `verb` that read it.
      told: what was damaged and how.
      status: the verb's exit status; CRASHED if it raised.
      line: the last line on stderr.
      faults: what is wrong with how it ended; empty if nothing is.
      seconds: it took.
    """

    number: int
    kind: str
    verb: str
    told: str
    status: int
    line: str
    faults: tuple[str, ...]
    seconds: float


def run_case(
    number: int, seed: int, base: Path, work: Path, targets: Sequence[Target] = TARGETS
) -> Result:
    """Runs a case in a folder of its own, which is gone afterwards.

    Args:
      number: of the case; with the seed it decides everything.
      seed: of the whole run.
      base: what `make_base` made.
      work: folder to work in.
      targets: one of them is drawn.
    """
    rng = np.random.default_rng([seed, number])
    weights = np.array([target.weight for target in targets])
    target = targets[int(rng.choice(len(targets), p=weights / weights.sum()))]
    top = work / f"case_{number}"
    shutil.rmtree(top, ignore_errors=True)
    case, outside = top / "case", top / OUTSIDE
    case.mkdir(parents=True)
    outside.mkdir()
    shutil.copyfile(base / "videos" / "videos_0001.mp4", outside / "secret.mp4")
    for name in target.copies:
        _copy(base / name, case / name)
    began = time.monotonic()
    try:
        arguments, damaged, told = _damage(target, rng, case, outside)
        orbax = target.kind in ("imported", "trained", "unfinished run")
        with _opened_in(outside) as opened:
            status, error = _run(arguments, top / "stdout", top / "stderr", orbax)
        text = (top / "stderr").read_text("utf-8", "replace")
        # A value that was given names its option: `--topology=v5p-0`.
        given = [one.partition("=")[2] or one for one in arguments]
        names = ["--", "config", "runs/", str(case), *given]
        names += [damaged.name] if damaged else []
        faults = [*_said_badly(status, error, text, names), *_left_badly(target, case, status)]
        faults += [f"opened {name} outside" for name in opened if target.kind[:6] != "config"]
        if (outside / UNPICKLED).exists():
            faults.append("unpickled")
        lines = text.strip().split("\n")
        return Result(
            number=number,
            kind=target.kind,
            verb=target.verb[0],
            told=told,
            status=status,
            line=lines[-1][:500],
            faults=tuple(faults),
            seconds=time.monotonic() - began,
        )
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copyfile(source, target)


def _damage(
    target: Target, rng: np.random.Generator, case: Path, outside: Path
) -> tuple[list[str], Path | None, str]:
    """Damages a file of the case, or draws a value; the verb's arguments, the file, and how."""
    config = run_arguments(case) if target.has_config else []
    damaged = None
    if target.damaged == ("config.py",):
        damaged = case / "config.py"
        damaged.write_text(settings_text(case))
        told = _damage_config(damaged, rng, outside)
    elif target.damaged:
        found = sorted({path for one in target.damaged for path in case.glob(one)})
        files = [path for path in found if path.is_file()]
        damaged = files[int(rng.integers(len(files)))]
        told = f"{damaged.relative_to(case)}: {damage(damaged, rng, outside)}"
    else:
        keys = [key for key in _keys(load_config("own_videos")) if key not in NOT_SET]
        key = keys[int(rng.integers(len(keys)))]
        key = key + "s" if rng.random() < 0.1 else key
        value = VALUES[int(rng.integers(len(VALUES)))]
        told = f"--config.{key}={value}"
        config = [*config, told]
    places = {"case": str(case), "damaged": str(damaged)}
    return [one.format(**places) for one in target.verb] + config, damaged, told


def _damage_config(path: Path, rng: np.random.Generator, outside: Path) -> str:
    lines = path.read_text().split("\n")
    number = int(rng.integers(len(lines)))
    how = str(rng.choice(["bytes", "drop", "twice", "value", "raise", "unknown"]))
    if how == "bytes":
        return damage_bytes(path, path.read_bytes(), rng, outside)
    keys = [key for key in _keys(load_config("own_videos")) if key not in NOT_SET]
    key = keys[int(rng.integers(len(keys)))]
    value = VALUES[int(rng.integers(len(VALUES)))]
    added = {
        "value": f"    config.{key} = {value or None}",
        "raise": "    raise RuntimeError('no')",
        "unknown": f"    config.{key}s = {value!r}",
    }
    if how == "drop":
        del lines[number]
    elif how == "twice":
        lines.insert(number, lines[number])
    else:
        lines.insert(len(lines) - 2, added[how])
    path.write_text("\n".join(lines))
    return f"config.py: {how} {added.get(how, f'line {number}')}"


def _keys(section: ConfigDict, where: str = "") -> list[str]:
    found: list[str] = []
    for name, value in section.items():
        key = where + name
        inner = isinstance(value, ConfigDict) and len(value)
        found += _keys(value, key + ".") if inner else [key]
    return found


# ------------------------------------------------------------------------------------------- judge


def _run(arguments: list[str], out: Path, err: Path, collect: bool) -> tuple[int, str]:
    """The exit status, and the traceback if it raised; what it prints goes to files."""
    kept, streams = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    # A test's own streams do not write to these descriptors.
    sys.stdout, sys.stderr = sys.__stdout__ or sys.stdout, sys.__stderr__ or sys.stderr
    for descriptor, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    try:
        return main(arguments), ""
    except (Exception, SystemExit):
        return CRASHED, traceback.format_exc()
    finally:
        if collect:  # what Orbax leaves of a failed read may complain when it is collected
            gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, old in zip((1, 2), kept, strict=True):
            os.dup2(old, descriptor)
            os.close(old)
        sys.stdout, sys.stderr = streams


def _said_badly(status: int, error: str, text: str, names: list[str]) -> Iterator[str]:
    if status == CRASHED:
        yield f"raised\n{error}"
        return
    if status not in (0, 1, 2):
        yield f"exit status {status}"
    if "Traceback" in text:
        yield f"a traceback\n{text}"
    lines = [line for line in text.splitlines() if line.startswith("tpo ") and ": error: " in line]
    if len(lines) != (status == 2):
        yield f"{len(lines)} lines of an error on stderr"
    elif lines and not any(name and name in lines[0] for name in names):
        yield f"names neither file nor key: {lines[0]}"


def _left_badly(target: Target, case: Path, status: int) -> Iterator[str]:
    for name in target.makes:
        path = case / name
        whole = (path / MANIFEST_NAME).exists() if path.is_dir() else path.exists()
        if path.exists() and not whole:
            yield f"{name} is half-written"
        if status == 2 and path.exists():
            yield f"{name} was written all the same"
        if status == 0 and not path.exists():
            yield f"{name} is missing"
    for path in case.rglob("*.tmp"):
        yield f"{path.name} was left behind"


@contextmanager
def _opened_in(folder: Path) -> Iterator[list[str]]:
    """Names of the files of a folder that anybody opens in the block: Python, or a decoder."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN)
    opened: list[str] = []
    try:
        yield opened
        try:
            events = os.read(watch, 65536)
        except BlockingIOError:
            return
        while events:  # watch, mask, cookie, and the name's length; then the name
            length = int.from_bytes(events[12:16], sys.byteorder)
            name, events = events[16 : 16 + length].rstrip(b"\0"), events[16 + length :]
            if name:
                opened.append(os.fsdecode(name))
    finally:
        os.close(watch)
