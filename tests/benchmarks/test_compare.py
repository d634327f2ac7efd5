"""Two results beside each other: what is counted, what is refused, and the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.compare import agreement, compare_results, headline, shared_items
from benchmarks.compare_page import compare_page, comparison_rows
from benchmarks.paired_test import paired_test
from benchmarks.task_result import TaskResult
from data_pipelines.errors import InputError


def result(correct: Sequence[bool], name: str = "base", **changes: Any) -> TaskResult:
    """Four questions about each video, in two groups; a right answer is "A"."""
    items = [
        {
            "item": f"q{number}",
            "file": f"v{number // 4}.mp4",
            "video": f"v{number // 4}",
            "groups": {"depth": f"{number % 2 / 2}", "frames": f"{10 * (1 + number // 4)}"},
            "question": f"What is shown {number}?",
            "options": ["A. <b>a ring</b>", "B. a star"],
            "answer": "A",
            "said": "A" if right else f"B {number}",
            "predicted": "A" if right else "B",
            "correct": right,
            "positions": [0, 1],
        }
        for number, right in enumerate(correct)
    ]
    scores = {"metric": "accuracy", "value": 100 * float(np.mean(correct))}
    made_from = {"checkpoint": name, "protocol": {"frames": 96} | changes}
    manifest = {"task": "own", "model": name, "scores": scores, "made_from": made_from}
    return TaskResult(folder=Path(name), manifest=manifest, items=items)


BASE = [True, True, False, False] * 3
BETTER = [True, True, True, False] * 2 + [False, True, True, True]


def test_wins_losses_and_groups_are_those_of_the_answers() -> None:
    told = compare_results(result(BASE), result(BETTER, "tpo", frames=128))
    assert told["wins"] == [2, 6, 10, 11] and told["losses"] == [8]
    whole = told["groups"]["all"]["all"]
    assert (whole["first"], whole["second"], whole["difference"]) == (0.5, 0.75, 0.25)
    assert (whole["wins"], whole["losses"]) == (4, 1)
    assert told["groups"]["frames"]["30"] | {"p": 0, "standard_error": 0} == {
        "items": 4,
        "first": 0.5,
        "second": 0.75,
        "difference": 0.25,
        "low": -1.0,
        "high": 1.0,
        "p": 0,
        "standard_error": 0,
        "wins": 2,
        "losses": 1,
    }
    assert told["settings"] == ["protocol.frames: 96 and 128"]
    assert "The second answers better: +25.0 [+25.0, +25.0]" in headline(told)
    assert agreement(told).startswith("The same choice in 7 of 12 questions, the same words in 7")
    swapped = compare_results(result(BETTER, "tpo"), result(BASE))
    assert "worse" in headline(swapped)
    assert swapped["wins"] == told["losses"] and swapped["losses"] == told["wins"]


def test_results_of_other_items_are_refused_or_cut_down() -> None:
    short = result(BASE[:8], "short")
    with pytest.raises(InputError, match="4 of base are not in short, such as 'q10'"):
        compare_results(result(BASE), short)
    first, second = shared_items(result(BASE), short)
    assert compare_results(first, second)["items"] == 8
    other = result(BASE, "other")
    other.items[3]["options"][0] = "A. a cross"
    with pytest.raises(InputError, match="'q3' differs in its options"):
        compare_results(result(BASE), other)


def test_the_page_shows_what_differs() -> None:
    first, second = result(BASE), result(BETTER, "tpo")
    told = compare_results(first, second)
    asked: list[str] = []

    def frames_of(line: Any) -> tuple[np.ndarray, np.ndarray]:
        asked.append(line["item"])
        return np.zeros((2, 8, 8, 3), np.uint8), np.array([0.0, 1.5])

    html = compare_page("tpo against base", [(told, first, second)], {"own": frames_of}).render()
    assert asked == ["q2", "q6", "q10", "q11", "q8"]
    assert html.count("data:image/jpeg") == 10 and "1.5 s" in html
    assert "4 questions won" in html and "1 questions lost" in html
    assert "A. &lt;b&gt;a ring" in html and "<b>a ring" not in html
    # The map of the needle: a row a depth, a column a length, for both.
    assert html.count('class="heat"') == 2 and "second: needles found" in html
    assert len(comparison_rows(told)) == 1 + 2 + 3


def test_swapping_finds_what_is_there_and_not_what_is_not() -> None:
    rng = np.random.default_rng(0)
    videos = [f"v{number // 3}" for number in range(300)]
    base = rng.random(300) < 0.5
    better = base | (rng.random(300) < 0.2)
    found = paired_test(base, better, videos)
    assert found.p < 0.001 and found.low > 0
    assert paired_test(base, base, videos).p == 1.0
    # Under equal models small p-values are as rare as they say.
    levels = [
        paired_test(rng.random(60) < 0.5, rng.random(60) < 0.5, videos[:60], seed).p
        for seed in range(60)
    ]
    assert np.mean(np.array(levels) < 0.25) < 0.45
    assert min(levels) > 1e-4


def test_questions_of_one_video_count_together() -> None:
    base = np.zeros(40, bool)
    better = np.arange(40) < 10
    apart = paired_test(base, better, [str(number) for number in range(40)])
    together = paired_test(base, better, [str(number // 10) for number in range(40)])
    assert apart.difference == together.difference == 0.25
    assert apart.standard_error is not None and together.standard_error is not None
    assert together.standard_error > 2 * apart.standard_error
    assert apart.p < 0.01 and together.p == 1.0  # one video alone may go either way
