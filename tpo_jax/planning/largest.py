"""The most frames, or pairs, that fit: a line through two compiles, and one or two to confirm."""

from collections.abc import Callable

from tpo_jax.errors import InputError

CONFIRMATIONS = 3


def largest_fitting(
    measure: Callable[[int], float], budget: float, *, start: int, step: int, what: str
) -> int:
    """The largest multiple of `step` that was seen to fit, near where the bytes reach the budget.

    Bytes grow with frames and pairs along a line, since the state does not depend on them. So two
    compiles say where the line meets the budget; what is there is compiled too, and if it is too
    much, the line is drawn anew through it.

    Args:
      measure: bytes at a number, from a compile; it must remember what it has compiled.
      budget: in bytes.
      start: where to compile first; rounded to a multiple of `step`.
      step: numbers in between do not divide over the mesh.
      what: is counted, for the error.

    Raises:
      InputError: not even `step` fits.
    """
    low = max(start // step, 1) * step
    high = 2 * low
    points = {low: measure(low), high: measure(high)}
    best = 0
    for _ in range(CONFIRMATIONS):
        best = max((number for number, size in points.items() if size <= budget), default=0)
        over = min((number for number, size in points.items() if size > budget), default=None)
        guess = meeting(points, budget) // step * step
        guess = max(guess, best, step)
        if over is not None:
            guess = min(guess, over - step)
        if guess in points or guess < step:
            break
        points[guess] = measure(guess)
    best = max((number for number, size in points.items() if size <= budget), default=0)
    if not best and step not in points and measure(step) <= budget:
        best = step
    if not best:
        raise InputError(
            f"not even {step} {what} fit; take a larger slice, or less of a row on each device "
            "(config.mesh.context, config.train.accumulate, config.train.remat)"
        )
    return best


def meeting(points: dict[int, float], budget: float) -> int:
    """Where a line meets the budget: through the points around it, else through the last two."""
    within = [number for number, size in points.items() if size <= budget]
    beyond = [number for number, size in points.items() if size > budget]
    if within and beyond:
        one, other = max(within), min(beyond)
    else:
        one, other = sorted(points, key=lambda number: abs(points[number] - budget))[:2]
    slope = (points[other] - points[one]) / (other - one)
    if slope <= 0:  # the smaller of them is all state
        return 2 * max(points)
    return int(one + (budget - points[one]) / slope)
