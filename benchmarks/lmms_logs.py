"""What lmms-eval logs of every sample (`--log_samples`), as answers to our items.

A line is a JSON object. Of it are read `doc_id`, the number of the row in the published data;
`filtered_resps` or `resps`, what the model said; `target`, the right answer; and `input`, the
prompt. The last two show that log and data belong together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record_file import read_lines
from benchmarks.task_run import Said
from benchmarks.tasks.item import Item
from data_pipelines.errors import InputError


def read_log(path: Path, items: Sequence[Item]) -> list[tuple[Item, Said, str]]:
    """Matches a log with a task's items.

    Args:
      path: `..._samples_TASK.jsonl`.
      items: of the task, in the order of the published rows.

    Returns:
      (item, what was said, the prompt if the log holds it) for every line, by row.

    Raises:
      InputError: the log is missing or damaged, or is of other data; names the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; lmms-eval writes it with --log_samples")
    text = path.read_bytes()
    if not text.endswith(b"\n") and text:
        raise InputError(f"{path}: its last line is cut off; was lmms-eval killed? log it again")
    found: dict[int, tuple[Item, Said, str]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}: line {number}"
        row = line.get("doc_id") if isinstance(line, dict) else None
        if not isinstance(row, int):
            raise InputError(f"{where}: has no doc_id; give a samples file of lmms-eval")
        if not 0 <= row < len(items):
            raise InputError(
                f"{where}: doc_id {row}, but the task's data has {len(items)} rows; give the same "
                "data as lmms-eval had"
            )
        if row in found:
            raise InputError(f"{where}: doc_id {row} stands twice; give one log at a time")
        item, prompt = items[row], line.get("input")
        prompt = prompt if isinstance(prompt, str) else ""
        if not _same(item, line.get("target"), prompt):
            raise InputError(
                f"{where}: doc_id {row} is another question than {item.id!r} of the data; give the "
                "same data as lmms-eval had"
            )
        said = Said(item=item.id, said=_text(line, where), tokens=0, finished=True, asked="")
        found[row] = (item, said, prompt)
    if not found:
        raise InputError(f"{path}: holds no sample")
    return [found[row] for row in sorted(found)]


def _text(line: dict[str, Any], where: str) -> str:
    """The answer; lists of one within lists of one, in older versions."""
    said = line.get("filtered_resps", line.get("resps"))
    while isinstance(said, list) and len(said) == 1:
        said = said[0]
    if not isinstance(said, str):
        raise InputError(f"{where}: filtered_resps is {said!r}; must be one answer")
    return said


def _same(item: Item, target: Any, prompt: str) -> bool:
    """Whether the line may be about the item: by its question, or else by its right answer."""
    if prompt:
        return " ".join(item.question.split()) in " ".join(prompt.split())
    return target is None or str(target) in (item.answer, *item.options) or len(str(target)) != 1
