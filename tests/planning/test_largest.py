"""The search for the most that fits, on bytes that are made up."""

from collections.abc import Callable

import pytest

from tpo_jax.errors import InputError
from tpo_jax.planning.largest import largest_fitting


def counting(size: Callable[[int], float]) -> tuple[Callable[[int], float], list[int]]:
    """The size, and the numbers that were asked for."""
    asked: list[int] = []

    def measure(number: int) -> float:
        asked.append(number)
        return size(number)

    return measure, asked


@pytest.mark.parametrize(("start", "step"), [(32, 1), (32, 8), (500, 8), (8, 8)])
def test_on_a_line_it_is_exact(start: int, step: int) -> None:
    measure, asked = counting(lambda number: 1000 + 7 * number)
    found = largest_fitting(measure, 3000, start=start, step=step, what="frames")
    assert found == 285 // step * step
    assert len(set(asked)) == len(asked) <= 5


def test_what_it_says_was_seen_to_fit() -> None:
    """Bytes that bend upwards: the line says too much, and is not believed."""
    measure, asked = counting(lambda number: 100 + number + number**2 / 500)
    found = largest_fitting(measure, 1000, start=32, step=1, what="pairs")
    assert measure(found) <= 1000 and found in asked
    assert found > 0.7 * 465


def test_nothing_fits() -> None:
    with pytest.raises(InputError, match="not even 8 frames fit"):
        largest_fitting(lambda number: 5000.0 + number, 3000, start=64, step=8, what="frames")
