"""The needle's run goes on where it was, and does not mix up films or models."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.needle_run import ask_trials
from benchmarks.tasks.demo_needles import NEEDLE_COLOURS, demo_haystack, demo_needles
from benchmarks.tasks.needles import Grid, Outcome, Trial, trials
from data_pipelines.errors import InputError
from data_pipelines.synthetic import RGB

ASKED = trials(Grid(fewest=2, most=4, step=2, depth_step=0.5), 2)


class Model:
    """Says the answer of needle 0, and can be told to die at its n-th question."""

    def __init__(self, name: str = "base", dies_at: int | None = None):
        self.name = name
        self.asked: list[Trial] = []
        self._dies_at = dies_at

    def say(self, trial: Trial) -> Outcome:
        if len(self.asked) == self._dies_at:
            raise KeyboardInterrupt
        self.asked.append(trial)
        return Outcome(said="B\u2028", correct=trial.needle == 0)


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    record = tmp_path / "needle.jsonl"
    with pytest.raises(KeyboardInterrupt):
        ask_trials(ASKED, Model(dies_at=5), record, "film")
    with record.open("a") as file:
        file.write('{"torn')
    again = Model()
    told: list[int] = []
    said = ask_trials(ASKED, again, record, "film", lambda done, total, what: told.append(done))
    assert [one.correct for one in said] == [trial.needle == 0 for trial in ASKED]
    assert {one.said for one in said} == {"B\u2028"}
    assert again.asked == ASKED[5:] and told == list(range(1, 13))


@pytest.mark.parametrize(("name", "film"), [("tpo", "film"), ("base", "another film")])
def test_other_models_and_films_are_asked_for_themselves(
    tmp_path: Path, name: str, film: str
) -> None:
    ask_trials(ASKED, Model(), tmp_path / "needle.jsonl", "film")
    other = Model(name)
    ask_trials(ASKED, other, tmp_path / "needle.jsonl", film)
    assert other.asked == ASKED


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "needle.jsonl").write_text('{"asked": "x", "said": "B"}\n')
    with pytest.raises(InputError, match="needle.jsonl: line 1 is damaged"):
        ask_trials(ASKED, Model(), tmp_path / "needle.jsonl", "film")


def test_the_demo_film_lacks_what_its_needles_show() -> None:
    film, needles = demo_haystack(12, seed=0), demo_needles(seed=0)
    assert film.shape == (12, 112, 112, 3) and len(needles) == 6

    def has(pictures: np.ndarray, colour: str) -> bool:
        return bool(np.all(pictures == RGB[colour], axis=-1).any())

    for number, colour in enumerate(NEEDLE_COLOURS):
        assert not has(film, colour)
        for needle in needles[2 * number : 2 * number + 2]:
            assert has(needle.picture, colour)
            assert colour in needle.question and needle.question.startswith("\n")
    assert any(has(film, colour) for colour in RGB)
    assert np.array_equal(demo_haystack(5, seed=0), film[:5])
