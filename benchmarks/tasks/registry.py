"""The tasks by name."""

import difflib

from benchmarks.tasks import (
    demo_questions,
    longvideobench,
    mlvu,
    mvbench,
    nextgqa,
    own_choices,
    tempcompass,
    video_mme,
    videohallucer,
)
from benchmarks.tasks.task import Task
from data_pipelines.errors import InputError

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *video_mme.TASKS,
        *longvideobench.TASKS,
        mlvu.TASK,
        nextgqa.TASK,
        videohallucer.TASK,
        tempcompass.TASK,
        mvbench.TASK,
        own_choices.TASK,
        demo_questions.TASK,
    )
}


def find_task(name: str) -> Task:
    """The task of this name. InputError names the nearest."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
        raise InputError(f"task {name!r}: not known; did you mean {near!r}? ({', '.join(TASKS)})")
    return TASKS[name]
