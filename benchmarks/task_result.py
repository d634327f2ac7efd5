"""The result of a task: a folder with every item's answer, the scores, and all that moved them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.record_file import read_lines
from benchmarks.statistics import accuracy_interval
from benchmarks.task_run import Question, Said
from benchmarks.tasks.task import Scored
from data_pipelines.artefacts import (
    MANIFEST_NAME,
    check_made_from,
    read_manifest,
    write_json,
    write_manifest,
    write_text,
)
from data_pipelines.errors import InputError

KIND = "scores"
ITEMS_FILE = "items.jsonl"
SUMMARY_FILE = "result.json"


# What every line of the items has; of `answer` and `predicted` a task chooses the type.
LINE_TYPES: Mapping[str, type] = {
    "item": str,
    "file": str,
    "video": str,
    "groups": dict,
    "question": str,
    "options": list,
    "answer": object,
    "said": str,
    "predicted": object,
    "parsed": bool,
    "correct": bool,
    "prompt": str,
    "positions": list,
}


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """A task's result as it lies on disk.

    Attributes:
      folder: where.
      manifest: settings (`made_from`), `scores`, and how it came about.
      items: a line for each item, in the task's order (`item_lines`).
    """

    folder: Path
    manifest: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        """Whose answers these are."""
        return str(self.manifest["model"])


def item_lines(
    questions: Sequence[Question], answers: Sequence[Said], scored: Sequence[Scored]
) -> list[dict[str, Any]]:
    """What the result keeps of each item, in order: all that is needed to compare it."""
    return [
        {
            "item": question.item.id,
            "file": question.item.video,
            "video": question.video,
            "groups": dict(question.item.groups),
            "question": question.item.question,
            "options": list(question.item.options),
            "answer": question.item.answer,
            "said": answer.said,
            "predicted": one.predicted,
            "parsed": bool(one.parsed),
            "correct": bool(one.correct),
            "tokens": answer.tokens,
            "finished": answer.finished,
            "prompt": question.text,
            "positions": [int(position) for position in question.positions],
        }
        for question, answer, one in zip(questions, answers, scored, strict=True)
    ]


def write_result(
    folder: Path,
    made_from: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    **content: Any,
) -> None:
    """Writes the items and the manifest into a folder that is being built.

    Args:
      folder: to write into.
      made_from: every setting that can move a score.
      items: from `item_lines`.
      scores: what the task's `summarise` gave; the plain accuracy and its interval are added.
      content: what else the manifest tells.
    """
    lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in items)
    write_text(folder / ITEMS_FILE, "".join(lines))
    interval = accuracy_interval(
        [line["correct"] for line in items], [line["video"] for line in items]
    )
    told = dict(scores) | {
        "items": len(items),
        "videos": len({line["video"] for line in items}),
        "correct": sum(line["correct"] for line in items),
        "accuracy": asdict(interval),
    }
    write_manifest(folder, KIND, made_from, scores=told, **content)


def is_finished(folder: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether the result is there, whole, and of these settings.

    Raises:
      InputError: it is there with other settings; says which differ.
    """
    if not folder.exists():
        return False
    found = read_manifest(folder, KIND)["made_from"]
    check_made_from(folder, found, made_from, "give another --out, or delete it")
    return True


def read_results(folder: Path) -> dict[str, TaskResult]:
    """The results of all tasks in a folder, or of the one that the folder itself is.

    Raises:
      InputError: there is none, or one is damaged.
    """
    if (folder / MANIFEST_NAME).exists():
        found = [folder]
    elif folder.is_dir():
        found = sorted(one.parent for one in folder.glob(f"*/{ITEMS_FILE}"))
        found = [one for one in found if not one.name.endswith(".partial")]
    else:
        found = []
    if not found:
        raise InputError(
            f"{folder}: no result here; give what `tpo eval --tasks` was given as --out"
        )
    results = {}
    for one in found:
        manifest = read_manifest(one, KIND)
        items = read_lines(one / ITEMS_FILE)
        if len(items) != manifest["scores"]["items"]:
            raise InputError(
                f"{one / ITEMS_FILE}: {len(items)} lines, {manifest['scores']['items']} items "
                "were scored; evaluate again"
            )
        _check_lines(one / ITEMS_FILE, items)
        results[str(manifest["task"])] = TaskResult(folder=one, manifest=manifest, items=items)
    return results


def _check_lines(path: Path, items: Sequence[Any]) -> None:
    for number, line in enumerate(items, start=1):
        found = line if isinstance(line, dict) else {}
        for name, kind in LINE_TYPES.items():
            if name not in found or not isinstance(found[name], kind):
                raise InputError(
                    f"{path}: line {number} has no {name!r}, or of another type; evaluate again"
                )


def write_summary(folder: Path) -> dict[str, Any]:
    """Writes result.json: settings and scores of all tasks in a folder. Returns its content."""
    content = {name: dict(result.manifest) for name, result in read_results(folder).items()}
    path = folder / SUMMARY_FILE
    if not path.exists() or json.loads(path.read_text()) != json.loads(json.dumps(content)):
        write_json(path, content)
    return content
