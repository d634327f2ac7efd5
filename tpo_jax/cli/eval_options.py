"""What `tpo eval --tasks`, `--compare` and `--from-logs` can be told."""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from benchmarks.protocols import PROTOCOLS, Protocol
from benchmarks.task_run import Part
from data_pipelines.errors import InputError
from data_pipelines.shards import Encoding
from tpo_jax.errors import did_you_mean

HELP = """
published benchmarks, of any checkpoint and without a run config (docs/evaluation.md):
  tpo eval --tasks=video_mme,mlvu --checkpoint=LLaVA-Video-7B-Qwen2 --protocol=tpo-paper \\
    --data video_mme=Video-MME --data mlvu=MLVU_dev --out=runs/base
  killed and run again it goes on where it was; --part=2/4 on each of 4 machines shares the work.

two results, question by question:
  tpo eval --compare runs/base runs/tpo --html=compare.html

what lmms-eval logged of a PyTorch model (--log_samples), scored by the same rules, beside ours:
  tpo eval --from-logs=..._samples_mlvu.jsonl --tasks=mlvu --data MLVU_dev --out=runs/torch \\
    --compare runs/base
"""
EVERYWHERE = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    group = parser.add_argument_group("benchmarks")
    group.add_argument("--tasks", metavar="NAMES", help="tasks to score, with commas between")
    group.add_argument(
        "--checkpoint", metavar="FOLDER", help="what is scored (default: config.checkpoint)"
    )
    group.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="best",
        help="how it is measured (default: %(default)s)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="changes one setting of the protocol, such as frames=64",
    )
    group.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="TASK=PATH",
        help="a task's published file or folder; with one task the path alone will do",
    )
    group.add_argument(
        "--videos",
        action="append",
        default=[],
        metavar="[TASK=]FOLDER",
        help="where the videos are (default: the folder of the task's data)",
    )
    group.add_argument(
        "--frames-store",
        action="append",
        default=[],
        metavar="[TASK=]STORE",
        help="frames that are decoded already; it must hold those that the protocol shows",
    )
    group.add_argument(
        "--encoding",
        choices=get_args(Encoding),
        default="raw",
        help="of frames that are decoded now (default: %(default)s, exact)",
    )
    group.add_argument(
        "--leave-out-missing",
        action="store_true",
        help="score what there are videos for, and compare the items that both results have",
    )
    group.add_argument("--limit", type=int, metavar="N", help="the first N items of each task")
    group.add_argument(
        "--compute-dtype",
        choices=("float32", "bfloat16"),
        help="of the model (default: as the checkpoint is stored, bfloat16 for float16)",
    )
    group.add_argument(
        "--part",
        default="1/1",
        metavar="I/N",
        help="asks every N-th video only; a run without it then finds all answers there",
    )
    group.add_argument("--out", metavar="DIR", help="folder of the results (default: runs/eval)")
    group.add_argument(
        "--compare",
        nargs="+",
        metavar="RESULT",
        help="two folders of results of the same items: the second less the first; or one, which "
        "what is scored now is compared with",
    )
    group.add_argument("--html", metavar="FILE", help="with --compare: a page of it")
    group.add_argument(
        "--from-logs", metavar="FILE", help="score this log of lmms-eval instead of a checkpoint"
    )


def by_task(given: Iterable[str], option: str, tasks: Iterable[str]) -> dict[str, str]:
    """What TASK=VALUE options say, by task; a value alone goes for every task.

    Raises:
      InputError: a task is not among those that are scored.
    """
    tasks = list(tasks)
    found: dict[str, str] = {}
    for one in given:
        head, equals, value = one.partition("=")
        if equals and head not in tasks and "/" not in head:
            raise InputError(
                f"--{option}={one}: {head} is not among --tasks={','.join(tasks)}"
                + did_you_mean(head, tasks)
            )
        known = equals and head in tasks
        for task in [head] if known else tasks:
            if known or task not in found:
                found[task] = value if known else one
    return found


def find_data(given: Iterable[str], tasks: Iterable[str]) -> dict[str, Path]:
    """Every task's data. InputError: a task has none."""
    tasks = list(tasks)
    found = by_task(given, "data", tasks)
    if missing := [task for task in tasks if task not in found]:
        raise InputError(
            f"--tasks={','.join(tasks)}: no data for {missing[0]}; give --data "
            f"{missing[0]}=PATH, its published file or folder"
        )
    return {task: Path(found[task]) for task in tasks}


def changed(protocol: Protocol, changes: Iterable[str]) -> Protocol:
    """The protocol with some of its settings changed, each as KEY=VALUE.

    Raises:
      InputError: no such setting, or a value it cannot have.
    """
    kinds = get_type_hints(Protocol)
    known = [one.name for one in fields(Protocol) if one.name != "name"]
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if key not in known or not equals:
            raise InputError(
                f"--set={change}: give KEY=VALUE, KEY one of {', '.join(known)}"
                + did_you_mean(key, known)
            )
        values[key] = _read(text, kinds[key], change)
    return replace(protocol, **values)


def _read(text: str, kind: Any, change: str) -> Any:
    choices: Mapping[str, Any] = {"true": True, "false": False}
    if get_origin(kind) is Literal:
        choices = {one: one for one in get_args(kind)}
    elif kind is not bool:
        try:
            return kind(text)
        except ValueError as error:
            raise InputError(f"--set={change}: must be a number") from error
    if text not in choices:
        raise InputError(f"--set={change}: must be one of {', '.join(choices)}")
    return choices[text]


def read_part(text: str) -> Part:
    """--part=I/N, I from 1. InputError: it is not."""
    index, _, of = text.partition("/")
    if not (index.isdigit() and of.isdigit() and 1 <= int(index) <= int(of)):
        raise InputError(f"--part={text}: give I/N, such as 2/4 for the second of four")
    return Part(index=int(index) - 1, of=int(of))
