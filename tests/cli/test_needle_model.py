"""The needle's question to the demo's model, beside its plain way of answering."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.tasks.demo_needles import demo_haystack, demo_needles
from benchmarks.tasks.needles import Trial
from data_pipelines.answering import Request
from data_pipelines.prompts import PromptPolicy
from tpo_jax.api import Answerer, load
from tpo_jax.cli.needle_model import NeedleModel
from tpo_jax.errors import InputError
from tpo_jax.generation.sampling import SamplingConfig


def test_it_says_what_it_would_answer_of_the_frames_in_that_order() -> None:
    model = load("demo_base")
    needles = demo_needles(seed=0)
    film = np.stack([model.images.prepare(frame) for frame in demo_haystack(4, seed=0)])
    picture = model.images.prepare(needles[0].picture)
    plain = Answerer(
        model,
        prompts=PromptPolicy(after_video="nothing"),
        sampling=SamplingConfig(max_new_tokens=16, temperature=0.0),
    )
    asked, depths = [], {0.0: 0, 0.5: 2, 1.0: 4}
    for before in depths.values():
        seen = np.insert(film, before, picture, axis=0)
        request = Request(question=needles[0].question, positions=np.arange(5))
        (answer,) = plain.answer_frames(seen, np.arange(5.0), 5.0, [request])
        # Whatever it says is what it must be found to say, its beginning too, and nothing else.
        for said in (answer.text, answer.text.split()[0], answer.text.replace(" ", " not ", 1)):
            asked.append(replace(needles[0], answer=said))
    needle_model = NeedleModel(model, film, asked)
    for number, depth in enumerate(depths):
        found = [
            needle_model.says(Trial(length=4, depth=depth, needle=3 * number + which))
            for which in range(3)
        ]
        assert found == [True, True, False]
    with pytest.raises(InputError, match="of 5 frames is asked for, the film has 4"):
        needle_model.says(Trial(length=5, depth=0.0, needle=0))
    assert model.fingerprint in needle_model.name
