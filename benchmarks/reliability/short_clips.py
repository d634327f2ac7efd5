"""How well a checkpoint answers about clips as short as those the demo's base was taught on.

    python -m benchmarks.reliability.short_clips --checkpoint=demo_base --clips=100

Prints accuracy by kind of question for clips of 6 and of 12 frames. The clips come from a seed that
no lesson has.
"""

import argparse
from collections import defaultdict

import numpy as np

from data_pipelines.answering import Request
from data_pipelines.lessons import draw_clip, draw_question
from data_pipelines.prompts import PromptPolicy
from data_pipelines.synthetic_events import COMPREHENSIVE_KINDS, LOCALIZED_KINDS
from tpo_jax.api import Answerer, LoadedModel, load
from tpo_jax.generation.sampling import SamplingConfig

SEED = 10_000
QUESTIONS = 12


def score(model: LoadedModel, answerer: Answerer, frames: int, clips: int) -> dict[str, float]:
    """Accuracy by kind on `clips` clips of `frames` frames."""
    right: dict[str, list[bool]] = defaultdict(list)
    for number in range(clips):
        rng = np.random.default_rng([SEED, frames, number])
        pictures, events = draw_clip(rng, frames, model.images)
        questions = {q.text: q for q in (draw_question(rng, events) for _ in range(QUESTIONS))}
        requests = [Request(question=text, positions=np.arange(frames)) for text in questions]
        times = np.arange(frames, dtype=np.float64)
        said = answerer.answer_frames(pictures, times, float(frames), requests)
        for question, answer in zip(questions.values(), said, strict=True):
            right[question.kind].append(answer.text == question.answer)
    return {kind: float(np.mean(values)) for kind, values in right.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="demo_base")
    parser.add_argument("--clips", type=int, default=100)
    arguments = parser.parse_args()
    model = load(arguments.checkpoint)
    answerer = Answerer(model, prompts=PromptPolicy(), sampling=SamplingConfig())
    kinds = [*LOCALIZED_KINDS, *COMPREHENSIVE_KINDS, "describe"]
    print("frames " + " ".join(f"{kind:>8}" for kind in kinds))
    for frames in (6, 12):
        found = score(model, answerer, frames, arguments.clips)
        print(f"{frames:6} " + " ".join(f"{found.get(kind, np.nan):8.2f}" for kind in kinds))


if __name__ == "__main__":
    main()
