"""What `tpo eval --needle` does: find a picture among many frames, at every length and depth."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.needle_run import ask_trials
from benchmarks.task_result import is_finished, write_result, write_summary
from benchmarks.tasks.demo_needles import demo_haystack, demo_needles
from benchmarks.tasks.needles import (
    Grid,
    Needle,
    needle_map,
    read_needles,
    summarise_map,
    trials,
    write_map,
)
from data_pipelines.artefacts import (
    building,
    check_unfinished,
    file_sha256,
    fingerprint,
    read_manifest,
)
from data_pipelines.errors import InputError
from data_pipelines.sampling import FramePolicy
from tpo_jax.api import LoadedModel, video_frames
from tpo_jax.cli.answering import answering_mesh
from tpo_jax.cli.eval_model import load_overridden
from tpo_jax.cli.eval_tasks import DEFAULT_OUT, stored_dtype
from tpo_jax.cli.needle_model import NeedleModel
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig

TASK = "vniah"
DEMO = "demo"
DEMO_GRID = "4:32:4:0.25"
PUBLISHED_GRID = "200:3000:200:0.2"
SEED = 0
RECORD = "trials.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    group = parser.add_argument_group("needle in a haystack of frames")
    group.add_argument(
        "--needle",
        metavar="PATH",
        help="pictures and questions: the folder of lmms-lab/v_niah_needles, a needles.jsonl, or "
        f"{DEMO} for synthetic ones that the demo's model can read",
    )
    group.add_argument("--haystack", metavar="FILM", help="a video that is long enough")
    group.add_argument(
        "--grid",
        metavar="FEWEST:MOST:STEP:DEPTH_STEP",
        help=f"frames and depths (default: {PUBLISHED_GRID}; {DEMO_GRID} with --needle={DEMO})",
    )


def read_grid(text: str) -> Grid:
    """A grid as the option has it. InputError if it is none."""
    try:
        fewest, most, step, depth_step = text.split(":")
        return Grid(
            fewest=int(fewest), most=int(most), step=int(step), depth_step=float(depth_step)
        )
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"--grid={text}: must be FEWEST:MOST:STEP:DEPTH_STEP, such as {PUBLISHED_GRID}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Haystack:
    """Frames uint8 [F, S, S, 3] at the encoder's size, and what tells them from others."""

    name: str
    frames_FHWC: np.ndarray
    made_from: str


def open_haystack(args: argparse.Namespace, grid: Grid, model: LoadedModel) -> Haystack:
    """The first frames of the film, one a second; InputError if there are too few."""
    if args.needle == DEMO:
        frames = [model.images.prepare(one) for one in demo_haystack(grid.most, SEED)]
        return Haystack(name=DEMO, frames_FHWC=np.stack(frames), made_from=f"demo {SEED}")
    # A second is a whole number of frames here, so that a film of 23.976 a second needs a little
    # more than a second for each.
    policy = FramePolicy(kind="fps", fps=1.0, max_frames=1_000_000)
    end = grid.most * 1.05 + 1
    frames_FHWC, _, _ = video_frames(model, args.haystack, policy, "exact", 0.0, end)
    if len(frames_FHWC) < grid.most:
        raise InputError(
            f"{args.haystack}: has {len(frames_FHWC)} frames at one a second, the grid asks for "
            f"{grid.most}; take a longer film or a smaller --grid"
        )
    return Haystack(
        name=Path(args.haystack).name,
        frames_FHWC=frames_FHWC[: grid.most],
        made_from=file_sha256(args.haystack)[:16],
    )


def _digest(needles: Sequence[Needle]) -> str:
    return fingerprint(
        {
            "needles": [
                [needle.question, needle.answer, fingerprint({"p": needle.picture.tolist()})]
                for needle in needles
            ]
        }
    )


def run_needle(args: argparse.Namespace, settings: RunConfig) -> Path:
    """Ask every question of the grid; returns the folder of the results.

    Beside the result that `--compare` reads it leaves all_accuracies.json and avg_accuracy.txt, as
    LongVA's own script does. Killed and run again it goes on where it was.
    """
    grid = read_grid(args.grid or (DEMO_GRID if args.needle == DEMO else PUBLISHED_GRID))
    needles = demo_needles(SEED) if args.needle == DEMO else read_needles(Path(args.needle))
    if args.needle != DEMO and not args.haystack:
        raise InputError(f"--needle={args.needle}: give --haystack=FILM too, a long video")
    mesh = answering_mesh(settings)
    model = load_overridden(args.checkpoint or settings.checkpoint, mesh=mesh)
    haystack = open_haystack(args, grid, model)
    compute_dtype = args.compute_dtype or stored_dtype(model)
    made_from = {
        "task": TASK,
        "grid": asdict(grid),
        "needles": _digest(needles),
        "haystack": haystack.made_from,
        "checkpoint": model.fingerprint,
        "model": asdict(model.config.visual_tokens),
        "compute_dtype": compute_dtype,
    }
    out = Path(args.out or DEFAULT_OUT)
    if not is_finished(out / TASK, made_from):
        asked = trials(grid, len(needles))
        with building(out / TASK, resume=True) as partial:
            partial = Path(partial)
            check_unfinished(partial, made_from)
            needle_model = NeedleModel(
                model, haystack.frames_FHWC, needles, compute_dtype=compute_dtype, mesh=mesh
            )
            with stage_progress(f"eval {TASK}", len(asked)) as update:
                outcomes = ask_trials(
                    asked,
                    needle_model,
                    partial / RECORD,
                    fingerprint(made_from),
                    lambda done, total, detail: update(done, detail),
                )
            cells = needle_map(grid, len(needles), [one.correct for one in outcomes])
            write_map(partial, cells)
            lines = [
                {
                    "item": f"{trial.length}/{trial.depth:.2f}/{trial.needle}",
                    # What one needle is asked at all places moves together.
                    "video": f"needle {trial.needle}",
                    "file": haystack.name,
                    "groups": {
                        "depth": f"{100 * trial.depth:.0f}",
                        "frames": str(trial.length),
                        "needle": str(trial.needle),
                    },
                    "question": needles[trial.needle].question.strip(),
                    "options": [],
                    "answer": needles[trial.needle].answer,
                    "said": outcome.said,
                    "predicted": outcome.said,
                    "parsed": True,
                    "correct": outcome.correct,
                    "prompt": needles[trial.needle].question,
                    "positions": [],
                }
                for trial, outcome in zip(asked, outcomes, strict=True)
            ]
            scores = summarise_map(cells)
            write_result(
                partial,
                made_from,
                lines,
                scores | {"metrics": {scores["metric"]: scores["value"]}, "unparsed": 0.0},
                task=TASK,
                model=needle_model.name,
                places={
                    "data": str(args.needle),
                    "frames": "",
                    "haystack": haystack.name,
                    "checkpoint": str(model.folder),
                },
            )
    told = write_summary(out)[TASK]["scores"]
    print(f"{told['metric']}: {told['value']:.4f}, results: {out / TASK}")
    return out


def demo_map(checkpoint: str, out: Path, settings: RunConfig) -> None:
    """The map of the demo's needles for a checkpoint, into `out`; done once."""
    given = argparse.Namespace(
        needle=DEMO, haystack=None, grid=None, checkpoint=checkpoint, compute_dtype=None, out=out
    )
    run_needle(given, settings)


def read_map(out: Path) -> dict[str, Any] | None:
    """`lengths`, `depths` and `map` (a row a depth) of such a folder; None where there is none."""
    folder = out / TASK
    return read_manifest(folder, "scores")["scores"] if folder.exists() else None
