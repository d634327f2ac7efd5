"""`tpo eval --needle`: what a checkpoint says to it, and from films to results and pages."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.tasks.demo_needles import demo_haystack, demo_needles
from benchmarks.tasks.needles import Needle, Outcome, Trial
from data_pipelines.answering import Request
from data_pipelines.prompts import PromptPolicy
from tests.benchmarks.made_tasks import write_needles
from tests.data_pipelines.conftest import make_video  # noqa: F401
from tpo_jax.api import Answerer, LoadedModel, load
from tpo_jax.cli import eval_needle
from tpo_jax.cli.main import main
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
            needle_model.say(Trial(length=4, depth=depth, needle=3 * number + which))
            for which in range(3)
        ]
        assert [one.correct for one in found] == [True, True, False]
        assert {one.said for one in found} == {asked[3 * number].answer}
    with pytest.raises(InputError, match="of 5 frames is asked for, the film has 4"):
        needle_model.say(Trial(length=5, depth=0.0, needle=0))
    assert model.fingerprint in needle_model.name


class Finder:
    """In place of the model: finds needles of the first half, and can be told to die."""

    name = "finder"
    left = 10**6
    haystack = np.zeros(0)

    def __init__(self, model: Any, haystack: np.ndarray, needles: Sequence[Needle], **_: Any):
        Finder.haystack = haystack
        self._needles = needles

    def say(self, trial: Trial) -> Outcome:
        if not Finder.left:
            raise KeyboardInterrupt
        Finder.left -= 1
        found = trial.depth <= 0.5
        return Outcome(said=self._needles[trial.needle].answer if found else "?", correct=found)


@cache
def load_once(name: str, mesh: object) -> LoadedModel:
    return load(name)


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_needle, "NeedleModel", Finder)
    monkeypatch.setattr(eval_needle, "load_overridden", load_once)
    monkeypatch.setattr(Finder, "left", 10**6)


def run(needle: Path | str, *more: str) -> int:
    return main(["eval", f"--needle={needle}", "--checkpoint=demo_base", *more])


@pytest.mark.usefixtures("finder")
def test_from_a_film_to_a_map(
    tmp_path: Path,
    make_video: Callable[..., Path],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    red = Image.new("RGB", (40, 30), (255, 0, 0))
    write_needles(tmp_path, [(red, "\nWhat colour?", "Red"), (red, "\nWhich?", "B")])
    film = make_video(tmp_path / "film.mp4", count=60, fps=5)
    out = tmp_path / "out"
    asked = (f"--haystack={film}", "--grid=4:12:4:0.5", f"--out={out}")
    Finder.left = 7
    assert run(tmp_path, *asked) == 130
    Finder.left = 11  # of 18
    assert run(tmp_path, *asked) == 0
    assert Finder.left == 0 and Finder.haystack.shape[0] == 12
    cells = json.loads((out / "vniah/all_accuracies.json").read_text("utf-8"))
    assert [cell["Score"] for cell in cells] == [1, 1, 0] * 3
    told = json.loads((out / "result.json").read_text("utf-8"))["vniah"]["scores"]
    assert told["value"] == pytest.approx(2 / 3) and told["lengths"] == [4, 8, 12]
    # Done already: nobody is asked, and the two maps are the same.
    page = tmp_path / "page.html"
    assert run(tmp_path, *asked, f"--compare={out}", f"--html={page}") == 0
    assert page.read_text("utf-8").count('class="heat"') == 2
    assert "The same choice in 18 of 18 questions" in capsys.readouterr().out
    assert run(tmp_path, f"--haystack={film}", "--grid=4:8:4:0.5", f"--out={out}") == 2
    assert "grid" in capsys.readouterr().err
    assert run(tmp_path, f"--haystack={film}", "--grid=4:13:3:0.5", "--out=x") == 2
    assert "has 12 frames at one a second, the grid asks for 13" in capsys.readouterr().err


@pytest.mark.usefixtures("finder")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--grid=4:8",), "--grid=4:8: must be FEWEST:MOST:STEP:DEPTH_STEP"),
        (("--grid=8:4:1:0.5",), "needle grid 8 to 4 by 1"),
        (("--tasks=mlvu",), "--needle=demo: asked for itself"),
    ],
)
def test_options_that_are_wrong(
    more: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("demo", *more) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("finder")
def test_real_needles_need_a_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_needles(tmp_path, [(Image.new("RGB", (4, 4)), "\nWhat colour?", "Black")])
    assert run(tmp_path) == 2
    assert "give --haystack=FILM too" in capsys.readouterr().err
