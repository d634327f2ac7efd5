"""`tpo eval --from-logs`: what another program's model said, scored by our rules."""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.degenerate import unreadable, warnings_of
from benchmarks.lmms_logs import read_log
from benchmarks.protocols import find_protocol
from benchmarks.task_result import is_finished, item_lines, write_result, write_summary
from benchmarks.task_run import Question
from benchmarks.tasks.registry import find_task
from benchmarks.tasks.task import count_warning, score_all
from data_pipelines.artefacts import building, file_sha256
from data_pipelines.errors import InputError
from tpo_jax import __version__
from tpo_jax.cli.eval_options import changed, find_data
from tpo_jax.cli.eval_tasks import DEFAULT_OUT, tell


def score_log(args: argparse.Namespace) -> Path:
    """Score a log of lmms-eval, as a result like any other; returns its folder.

    The protocol's rule for letters and averages counts; frames, pooling and prompts were whatever
    lmms-eval was told.

    Raises:
      InputError: not one task was named, or the log is not of its data.
    """
    names = (args.tasks or "").split(",")
    if not args.tasks or len(names) != 1:
        raise InputError("--from-logs: give the log's task as --tasks=NAME, and one only")
    (name,) = names
    task, data = find_task(name), find_data(args.data, names)[name]
    # A model's family moves frames and prompts, which the log has already.
    protocol = changed(find_protocol(args.protocol, name, "llava_video"), args.set)
    log, out = Path(args.from_logs), Path(args.out or DEFAULT_OUT)
    found = read_log(log, task.read(data))
    made_from = {
        "task": name,
        "log": file_sha256(log)[:16],
        "protocol": {"name": protocol.name, "letters": protocol.letters, "mlvu": protocol.mlvu},
        "changed": sorted(args.set),
    }
    if not is_finished(out / name, made_from):
        items = [item for item, _, _ in found]
        answers = [said for _, said, _ in found]
        scored = score_all(task, items, [said.said for said in answers], protocol)
        # Which file it was is all that is known of a video.
        questions = [
            Question(item=item, video=item.video, text=prompt, positions=np.zeros(0, np.int64))
            for item, _, prompt in found
        ]
        with building(out / name) as partial:
            write_result(
                Path(partial),
                made_from,
                item_lines(questions, answers, scored),
                task.summarise(items, scored, protocol),
                task=name,
                model=f"log {log.name}",
                left_out=0,
                warnings=[
                    *filter(None, [count_warning(task, items)]),
                    *warnings_of(answers).values(),
                    *unreadable(scored),
                ],
                made_with={"tpo_jax": __version__},
                places={"data": str(data), "log": str(log), "frames": ""},
            )
    tell({name: write_summary(out)[name]})
    print(f"results: {out}")
    return out
