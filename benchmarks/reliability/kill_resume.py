"""Kills `tpo train` at random points, starts it again, and compares with an undisturbed run.

    python -m benchmarks.reliability.kill_resume --kills 20 --seed 0

The shipped demo base is trained a few steps on pairs about made videos. Every start is a process of
its own, every kill is SIGKILL, and nothing compiled is kept, so that each start compiles. The loss
curve (`metrics.jsonl` without times) and the parameters must equal those of the undisturbed run to
the last bit. One more run is begun on four devices and ended on eight, with another mesh: its
parameters may differ by 1e-5, relative. Prints a table, writes it as JSON, and exits with 1 where
anything differs.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.artefacts import building, write_json, write_manifest
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import Pair, write_pairs
from data_pipelines.synthetic import read_truth, write_videos
from data_pipelines.synthetic_events import every_question
from tpo_jax.training.checkpoints import STEP_PREFIX, read_params, saved_steps
from tpo_jax.training.loop import CHECKPOINTS_FOLDER
from tpo_jax.training.run_log import METRICS_FILE, read_metrics
from tpo_jax.training.step_clock import without_timing

PHASES = ("start", "compile", "step", "save")
AIMS = ("compile", "step", "save", "any time")
DEVICES = 2
OTHER_MESH = ("--config.mesh.fsdp=2", "--config.mesh.tensor=2")  # on twice as many devices
TOLERANCE = 1e-5
STEPS = 10
VIDEOS = 2
PAIRS_A_VIDEO = 8
SETTINGS = (
    f"--config.train.steps={STEPS}",
    "--config.train.save_every=2",
    "--config.train.batch_pairs=4",
    "--config.train.learning_rate=1e-4",
    "--config.train_frames=4",
    "--config.workers=1",
)
# XLA makes less of the step, which then compiles in a third of the time.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
POLL_SECONDS = 0.0005
TIMEOUT_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill: what it waited for, in what it hit, seconds after the start, and what was there."""

    run: int
    aim: str
    phase: str
    seconds: float
    steps_done: int
    newest_checkpoint: int


class Trial:
    """A run folder on shared frames, pairs and reference, and the processes that train in it."""

    def __init__(self, root: Path, name: str, environment: Mapping[str, str] = NO_CACHE):
        self.root = root
        self.environment = environment
        self.folder = root / name
        self.folder.mkdir()
        for artefact in ("pairs", "reference"):
            (self.folder / artefact).symlink_to(root / artefact)
        self.partial = self.folder / "train.partial"
        self.checkpoints = self.partial / CHECKPOINTS_FOLDER

    def start(self, *options: str, devices: int = DEVICES) -> subprocess.Popen:
        """`tpo train` in a process of its own; remembers what was there before it."""
        self.began = time.monotonic()
        self.boards = self._boards()
        self.saves = self._saves()
        self.first = max(saved_steps(self.checkpoints), default=0)
        return start_tpo(
            "train", self.root, self.folder, options, devices, environment=self.environment
        )

    def finish(self, *options: str, devices: int = DEVICES) -> None:
        """Train to the end, undisturbed."""
        check_ended(self.start(*options, devices=devices))
        self.took = time.monotonic() - self.began

    def phase(self) -> str:
        """What the process that was started last does, or was killed in."""
        if self._boards() == self.boards:
            return "start"
        if self._saves() - self.saves:
            return "save"
        return "step" if self.steps_done() > self.first else "compile"

    def steps_done(self) -> int:
        """Whole lines of the metrics."""
        path = self.partial / METRICS_FILE
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def _boards(self) -> set[str]:
        """TensorBoard files: a process opens its own when all is read and nothing compiled."""
        return {path.name for path in self.partial.glob("tensorboard/*")}

    def _saves(self) -> set[tuple[str, int]]:
        """Folders of saves under way, or left behind by those that were killed."""
        found = set()
        for path in self.checkpoints.glob(f"{STEP_PREFIX}_*-tmp*"):
            try:
                found.add((path.name, path.stat().st_ino))
            except FileNotFoundError:  # it has its name by now
                continue
        return found

    def result(self) -> tuple[list[dict[str, float]], list[np.ndarray]]:
        """Metrics without times, and all parameters."""
        curve = [without_timing(line) for line in read_metrics(self.folder / "train")]
        return curve, jax.tree.leaves(read_params(self.folder / "train" / CHECKPOINTS_FOLDER))


def start_tpo(
    verb: str,
    root: Path,
    run_dir: Path,
    options: Sequence[str] = (),
    devices: int = DEVICES,
    *,
    environment: Mapping[str, str] = NO_CACHE,
) -> subprocess.Popen:
    """A verb on the demo's config, on virtual devices."""
    variables = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
        "NPROC": "32",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK}",
        **environment,
    }
    arguments = [
        f"--config.run_dir={run_dir}",
        f"--config.videos={root / 'videos'}",
        f"--config.frames_dir={root / 'frames'}",
        *SETTINGS,
        *options,
    ]
    with (root / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "tpo_jax.cli.main", verb, *arguments]
        return subprocess.Popen(command, env=variables, stdout=log, stderr=log)


def check_ended(process: subprocess.Popen) -> None:
    """Waits for a process; AssertionError unless it ended well."""
    try:
        code = process.wait(TIMEOUT_SECONDS)
    finally:
        process.kill()
    assert code == 0, f"{process.args!r}: exit status {code}; log.txt says why"


def prepare(root: Path, environment: Mapping[str, str] = NO_CACHE) -> None:
    """Videos, frames, pairs by the grammar of the videos, and the reference."""
    write_videos(root / "videos", root / "truth.json", count=VIDEOS, events=(4, 4), seed=0)
    check_ended(start_tpo("frames", root, root, environment=environment))
    store = FrameStore.open(root / "frames")
    truth = read_truth(root / "truth.json")
    pairs = []
    for video in store.videos:
        (name,) = store.info(video).names
        questions = list(every_question([shown.event for shown in truth[name]]))
        differ = [
            (one.text, one.answer, other.answer)
            for one, other in pairwise(questions)
            if one.answer != other.answer
        ]
        pairs += [
            made_pair(f"{name} {number}", video, *texts)
            for number, texts in enumerate(differ[:PAIRS_A_VIDEO])
        ]
    with building(root / "pairs") as partial:
        write_pairs(partial / "pairs.jsonl", pairs)
        write_manifest(partial, "pairs", {"frames": store.fingerprint}, pairs=len(pairs))
    check_ended(start_tpo("reference", root, root, environment=environment))


def made_pair(name: str, video: str, question: str, chosen: str, rejected: str) -> Pair:
    """A pair of two answers, of which nothing else is to be told."""
    return Pair(
        id=name,
        video_id=video,
        granularity="localized",
        kind="made",
        question=question,
        chosen=chosen,
        rejected=rejected,
        negative="none",
        chosen_frames=[],
        rejected_frames=[],
        segment=None,
        generator="grammar",
        sampling={},
        judge="none",
    )


def kill_once(
    trial: Trial, run: int, aim: str, rng: np.random.Generator, usual_seconds: float
) -> Kill | None:
    """Starts training and kills it when it does what is aimed at; None if it ended before that."""
    moment = float(rng.uniform(0, usual_seconds))
    after = float(rng.uniform(0, 0.5))  # of a second into the compilation
    step = int(rng.integers(1, 5))  # of those this process does
    process = trial.start()
    seen_at: float | None = None
    try:
        while process.poll() is None:
            now = time.monotonic() - trial.began
            phase = trial.phase()
            if aim == "any time":
                due = now >= moment
            elif aim == "step":
                due = phase == "step" and trial.steps_done() >= trial.first + step
            elif aim == "compile":
                seen_at = now if phase == "compile" and seen_at is None else seen_at
                due = seen_at is not None and now >= seen_at + after
            else:
                due = phase == "save"
            if due:
                process.kill()
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
    if process.wait() != -signal.SIGKILL:
        assert process.returncode == 0, f"exit status {process.returncode}; log.txt says why"
        return None
    return Kill(
        run=run,
        aim=aim,
        phase=trial.phase(),
        seconds=round(time.monotonic() - trial.began, 2),
        steps_done=trial.steps_done(),
        newest_checkpoint=max(saved_steps(trial.checkpoints), default=0),
    )


def relative_difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The largest, over parameters, of the norm of the difference over the norm.

    A mesh pads the vocabulary to what divides over it: rows that only one of them has are left out.
    """
    found = []
    for one, other in zip(ours, theirs, strict=True):
        rows = min(len(one), len(other))
        norm = float(np.linalg.norm(other[:rows])) or 1.0
        found.append(float(np.linalg.norm(one[:rows] - other[:rows])) / norm)
    return max(found)


def bit_equal(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> bool:
    """Whether all arrays have the same bytes."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


def kill_and_compare(
    undisturbed: Trial, *, kills: int, kills_a_run: int, seed: int
) -> dict[str, Any]:
    """Runs that are killed so often, each compared with the undisturbed one."""
    root, usual_seconds = undisturbed.root, undisturbed.took
    rng = np.random.default_rng(seed)
    curve, params = undisturbed.result()
    assert len(curve) == STEPS
    done: list[Kill] = []
    runs: list[dict[str, Any]] = []
    while len(done) < kills:
        trial = Trial(root, f"killed_{len(runs)}")
        before = len(done)
        while len(done) < min(kills, before + kills_a_run):
            kill = kill_once(trial, len(runs), AIMS[len(done) % len(AIMS)], rng, usual_seconds)
            if kill is None:
                break
            done.append(kill)
            print(f"killed in {kill.phase} after {kill.seconds:.1f} s", file=sys.stderr, flush=True)
        if not (trial.folder / "train").exists():
            trial.finish()
        own_curve, own_params = trial.result()
        runs.append(
            {
                "kills": len(done) - before,
                "metrics_equal": own_curve == curve,
                "parameters_bit_equal": bit_equal(own_params, params),
                "damaged": len(list((trial.folder / "train").rglob("*.damaged"))),
            }
        )
    return {
        "steps": STEPS,
        "undisturbed_seconds": round(usual_seconds, 1),
        "kills": [asdict(kill) for kill in done],
        "runs": runs,
    }


def change_layout(undisturbed: Trial, seed: int) -> dict[str, Any]:
    """A run killed on four devices after its first checkpoint, and ended on eight, once."""
    rng = np.random.default_rng([seed, 1])
    trial = Trial(undisturbed.root, "other_layout")
    while not saved_steps(trial.checkpoints):
        kill = kill_once(trial, 0, "step", rng, 0)
        assert kill is not None, "it was to be killed in a step"
    begun = max(saved_steps(trial.checkpoints))
    trial.finish(*OTHER_MESH, devices=2 * DEVICES)
    difference = relative_difference(trial.result()[1], undisturbed.result()[1])
    return {
        "begun_on": f"{DEVICES} devices, fsdp={DEVICES}",
        "steps_there": begun,
        "ended_on": f"{2 * DEVICES} devices, fsdp=2, tensor=2",
        "relative_difference": difference,
        "within": TOLERANCE,
    }


def failures(told: dict[str, Any]) -> list[str]:
    """What is not as it must be."""
    found = [
        f"run {number}: {name}"
        for number, run in enumerate(told["runs"])
        for name in ("metrics_equal", "parameters_bit_equal")
        if not run[name]
    ]
    other = told.get("other_layout")
    if other and not other["relative_difference"] <= TOLERANCE:
        found.append(f"other layout: {other['relative_difference']:.1e}")
    return found


def table(told: dict[str, Any]) -> str:
    """Kills by what they hit, and what came of the runs."""
    hit = Counter(kill["phase"] for kill in told["kills"])
    lines = [f"{phase:<8} {hit[phase]:3} kills" for phase in PHASES]
    equal = sum(run["metrics_equal"] and run["parameters_bit_equal"] for run in told["runs"])
    lines.append(f"{equal} of {len(told['runs'])} runs end bit-equal to the undisturbed one")
    if other := told.get("other_layout"):
        lines.append(
            f"{other['begun_on']}, after step {other['steps_there']} {other['ended_on']}: "
            f"parameters differ by {other['relative_difference']:.1e}"
        )
    return "\n".join(lines)


def main() -> int:
    """Run everything; returns 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-a-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kill_resume.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root)
        undisturbed = Trial(root, "undisturbed")
        undisturbed.finish()
        told = kill_and_compare(
            undisturbed,
            kills=arguments.kills,
            kills_a_run=arguments.kills_a_run,
            seed=arguments.seed,
        )
        told["other_layout"] = change_layout(undisturbed, arguments.seed)
    write_json(arguments.out, told)
    print(table(told))
    for failure in failures(told):
        print(f"FAILED: {failure}")
    return 1 if failures(told) else 0


if __name__ == "__main__":
    sys.exit(main())
