"""`tpo eval --tasks`: a checkpoint -> scores on published benchmarks, without a run config."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from benchmarks.degenerate import unreadable, warnings_of
from benchmarks.protocols import Family, Protocol, find_protocol
from benchmarks.task_result import is_finished, item_lines, write_result, write_summary
from benchmarks.task_run import Part, Question, Said, ask_questions, read_answers
from benchmarks.tasks.item import Item
from benchmarks.tasks.registry import find_task
from benchmarks.tasks.task import Task, count_warning, score_all
from data_pipelines.artefacts import check_unfinished, fingerprint
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.prompts import PromptPolicy
from tpo_jax import __version__
from tpo_jax.api import Answerer, LoadedModel
from tpo_jax.cli.answering import ShownFrames, answering_mesh
from tpo_jax.cli.eval_frames import (
    Decoding,
    Frames,
    find_files,
    make_questions,
    make_store,
    open_store,
)
from tpo_jax.cli.eval_model import load_overridden, override
from tpo_jax.cli.eval_options import by_task, changed, find_data, read_part
from tpo_jax.cli.eval_videos import VideoFiles
from tpo_jax.cli.hosts import building_together
from tpo_jax.cli.progress import stage_progress, warn
from tpo_jax.cli.settings import RunConfig
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.parallel.distributed import first_host_first, is_first_host, wait_for_all

DEFAULT_OUT = "runs/eval"
FRAMES = "eval_frames"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A task with its data and the way it is measured."""

    task: Task
    data: Path
    items: Sequence[Item]
    protocol: Protocol


def run_tasks(args: argparse.Namespace, settings: RunConfig) -> Path:
    """Score the checkpoint on every task; returns the folder of the results.

    A task that is done already with the same settings is not done again.
    """
    part = read_part(args.part)
    names = args.tasks.split(",")
    if part.of > 1 and not args.frames_store:
        raise InputError(
            f"--part={args.part}: give --frames-store too, so that parts do not all decode; "
            "`tpo frames VIDEOS STORE` makes one"
        )
    mesh = answering_mesh(settings)
    tasks = {name: find_task(name) for name in names}
    data = find_data(args.data, names)
    for name in names:  # a mistyped setting is told before the model is loaded
        changed(find_protocol(args.protocol, name, "llava_video"), args.set)
    read = {name: task.read(data[name]) for name, task in tasks.items()}
    model = load_overridden(args.checkpoint or settings.checkpoint, mesh=mesh)
    out = Path(args.out or DEFAULT_OUT)
    for name in names:
        protocol = find_protocol(args.protocol, name, family_of(model))
        chosen = Chosen(
            task=tasks[name],
            data=data[name],
            items=read[name][: args.limit],
            protocol=changed(protocol, args.set),
        )
        seen = override(
            model,
            pool=None if chosen.protocol.pool == "model" else chosen.protocol.pool,
            pixel_dtype=chosen.protocol.pixels,
        )
        with first_host_first(f"frames of {name}"):
            store = _store(chosen, seen, args, settings)
        evaluate_task(chosen, seen, store, out / name, args, part, mesh)
    if part.of == 1 and is_first_host():
        results = write_summary(out)
        tell({name: results[name] for name in names})
        print(f"results: {out}")
    return out


def family_of(model: LoadedModel) -> Family:
    """LongVA's kind sees through CLIP."""
    return "longva" if model.config.vision.class_token else "llava_video"


def _store(
    chosen: Chosen, model: LoadedModel, args: argparse.Namespace, settings: RunConfig
) -> Frames:
    name, names = chosen.task.name, args.tasks.split(",")
    given = by_task(args.frames_store, "frames-store", names)
    if name in given:
        return open_store(given[name], model.images)
    # Published videos lie in the folder of their data set, or in one inside it.
    beside = chosen.data if chosen.data.is_dir() else chosen.data.parent
    videos = by_task(args.videos, "videos", names).get(name, str(beside))
    if chosen.task.frames is not None:
        files = find_files(chosen.items, videos, args.leave_out_missing)
        return VideoFiles(Path(videos), files, model.images)
    how = Decoding(
        # Beside the results, so that all models that are measured alike share it.
        folder=Path(args.out or DEFAULT_OUT).parent / FRAMES,
        encoding=args.encoding,
        workers=settings.workers,
        leave_out=args.leave_out_missing,
    )
    return make_store(chosen.items, chosen.protocol, videos, model.images, how)


def evaluate_task(
    chosen: Chosen,
    model: LoadedModel,
    store: Frames,
    out: Path,
    args: argparse.Namespace,
    part: Part,
    mesh: Mesh | None,
) -> None:
    """Ask all items of a task, or a part of them; when all are answered, score and write."""
    task, protocol = chosen.task, chosen.protocol
    leave_out = args.leave_out_missing
    questions = make_questions(task, chosen.items, protocol, store, leave_out)
    prompts = PromptPolicy(time_instruction=protocol.time_instruction, frame_times="reference")
    sampling = SamplingConfig(
        max_new_tokens=protocol.max_new_tokens, temperature=protocol.temperature
    )
    compute_dtype = args.compute_dtype or stored_dtype(model)
    made_from = {
        "task": task.name,
        "questions": fingerprint({"asked": [one.asked for one in questions]}),
        "right_answers": fingerprint({"right": [one.item.answer for one in questions]}),
        "protocol": asdict(protocol),
        "changed": sorted(args.set),
        "checkpoint": model.fingerprint,
        "model": asdict(model.config.visual_tokens)
        | {"pixel_dtype": model.config.vision.pixel_dtype},
        "frames": store.policies | {"lossy": store.lossy},
        "prompts": asdict(prompts),
        "sampling": asdict(sampling),
        "compute_dtype": compute_dtype,
    }
    if is_finished(out, made_from):
        return
    began = time.monotonic()
    answerer = Answerer(
        model,
        prompts=prompts,
        sampling=sampling,
        compute_dtype=compute_dtype,
        seed=protocol.seed,
        mesh=mesh,
    )
    asked = ShownFrames(model, answerer, store)
    if part.of > 1:
        # The folder is finished by a run without --part, which finds these answers there.
        partial = out.with_name(f"{out.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        check_unfinished(partial, made_from)
        _ask(questions, asked, partial, part, task)
        return
    with building_together(out, made_from) as partial:
        partial = Path(partial)
        # Hosts share the videos as parts do, and the first one puts together what all were told.
        of_host = Part(index=jax.process_index(), of=jax.process_count())
        _ask(questions, asked, partial, of_host, task)
        wait_for_all(f"{out} is asked")
        if not is_first_host():
            return
        known = read_answers(partial)
        answers = [known[question.asked] for question in questions]
        items = [question.item for question in questions]
        scored = score_all(task, items, [one.said for one in answers], protocol)
        write_result(
            partial,
            made_from,
            item_lines(questions, answers, scored),
            task.summarise(items, scored, protocol),
            task=task.name,
            model=asked.name,
            left_out=len(chosen.items) - len(questions),
            warnings=[
                *filter(None, [count_warning(task, items)]),
                *warnings_of(answers, _has_options(items)).values(),
                *unreadable(scored),
            ],
            made_with=_made_with(began),
            places={
                "data": str(chosen.data),
                "frames": str(store.path) if isinstance(store, FrameStore) else "",
                "checkpoint": str(model.folder),
            },
        )


def _ask(
    questions: Sequence[Question], model: ShownFrames, folder: Path, part: Part, task: Task
) -> None:
    shouted: set[str] = set()
    options = _has_options([question.item for question in questions])
    videos = len({question.video for question in questions})
    title = f"eval {task.name}" + (f", part {part.index + 1} of {part.of}" if part.of > 1 else "")
    with stage_progress(title, len(range(part.index, videos, part.of))) as update:

        def progress(done: int, total: int, video: str, so_far: Sequence[Said]) -> None:
            update(done, video)
            for sign, text in warnings_of(so_far, options).items():
                if sign not in shouted:
                    shouted.add(sign)
                    warn(f"{task.name}: {text}")

        ask_questions(questions, model, folder, part, progress)


def _has_options(items: Sequence[Item]) -> bool:
    return any(item.options for item in items)


def _made_with(began: float) -> dict[str, Any]:
    """What cannot be set, and moves a score by rounding at most."""
    device = jax.devices()[0]
    return {
        "tpo_jax": __version__,
        "jax": jax.__version__,
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "seconds": round(time.monotonic() - began, 1),
    }


def stored_dtype(model: LoadedModel) -> str:
    """What the checkpoint is stored in; bfloat16 also for float16, whose range is too small."""
    return "float32" if model.json.get("torch_dtype") == "float32" else "bfloat16"


def tell(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a line for each task, and whatever is wrong with it."""
    table = Table()
    for name in ("task", "items", "metric", "value", "accuracy [95%]", "unparsed", "model"):
        right = name in ("items", "value", "accuracy [95%]", "unparsed")
        table.add_column(name, justify="right" if right else "left")
    for name, result in results.items():
        scores = result["scores"]
        value, low, high = (100 * scores["accuracy"][one] for one in ("value", "low", "high"))
        table.add_row(
            name,
            str(scores["items"]),
            scores["metric"],
            f"{scores['value']:.4g}",
            f"{value:.1f} [{low:.1f}, {high:.1f}]",
            f"{scores['unparsed']:.1%}",
            result["model"],
        )
    Console(width=120).print(table)
    for name, result in results.items():
        for text in result["warnings"]:
            warn(text if text.startswith(f"{name}: ") else f"{name}: {text}")
        if result["left_out"]:
            warn(f"{name}: {result['left_out']} items were left out; their videos are missing")
