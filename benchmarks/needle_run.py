"""Asks a model the needle's questions, and keeps what became of each as it comes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.record_file import append_lines, cut_torn_line, damaged, read_lines
from benchmarks.tasks.needles import ForcedModel, Outcome, Trial
from data_pipelines.artefacts import fingerprint

Progress = Callable[[int, int, str], None]


def ask_trials(
    asked: Sequence[Trial],
    model: ForcedModel,
    record: Path,
    made_from: str,
    progress: Progress | None = None,
) -> list[Outcome]:
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
    known: dict[str, Outcome] = {}
    for number, line in enumerate(read_lines(record), start=1):
        try:
            known[line["asked"]] = Outcome(said=line["said"], correct=line["correct"])
        except (KeyError, TypeError) as error:
            raise damaged(record, number) from error
    outcomes = []
    for done, trial in enumerate(asked, start=1):
        key = fingerprint({"model": model.name, "from": made_from, "trial": vars(trial)})
        if key not in known:
            known[key] = model.say(trial)
            append_lines(record, [vars(trial) | vars(known[key]) | {"asked": key}])
        outcomes.append(known[key])
        if progress:
            progress(done, len(asked), f"{trial.length} frames, depth {trial.depth:.1f}")
    return outcomes
