"""Asks a model the needle's questions, and keeps what became of each as it comes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.record_file import append_lines, cut_torn_line, damaged, read_lines
from benchmarks.tasks.needles import ForcedModel, Trial
from data_pipelines.artefacts import fingerprint

Progress = Callable[[int, int, str], None]


def ask_trials(
    asked: Sequence[Trial],
    model: ForcedModel,
    record: Path,
    made_from: str,
    progress: Progress | None = None,
) -> list[bool]:
    """What became of each question, in order; those that the file knows are not asked again.

    Args:
      asked: from `needles.trials`.
      model: whom to ask.
      record: JSON lines, one a question, appended to as they come.
      made_from: fingerprint of haystack and needles; results about others are not taken for these.
      progress: called as `progress(done, of so many, what was asked last)`.

    Raises:
      InputError: the file is damaged elsewhere than in its last line.
    """
    cut_torn_line(record)
    known: dict[str, bool] = {}
    for number, line in enumerate(read_lines(record), start=1):
        if not isinstance(line.get("asked"), str) or not isinstance(line.get("said"), bool):
            raise damaged(record, number)
        known[line["asked"]] = line["said"]
    said = []
    for done, trial in enumerate(asked, start=1):
        key = fingerprint({"model": model.name, "from": made_from, "trial": vars(trial)})
        if key not in known:
            known[key] = model.says(trial)
            append_lines(record, [vars(trial) | {"said": known[key], "asked": key}])
        said.append(known[key])
        if progress:
            progress(done, len(asked), f"{trial.length} frames, depth {trial.depth:.1f}")
    return said
