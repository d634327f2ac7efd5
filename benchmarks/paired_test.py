"""Is one model better than another on the same items, when questions come in videos?

The standard error is that of Miller, Adding Error Bars to Evals (arXiv 2411.00640), equation 4, as
in lmms-eval: questions about one video count together as far as they move together. The p-value is
of a test that swaps both models' answers, video by video: where they are equally good, either
labelling was as likely. It needs no assumption about how differences are spread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.statistics import Outcomes, paired_difference

SWAPS = 10_000
_AT_ONCE = 2_000_000  # signs that are drawn at once


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Accuracy of the second less that of the first.

    Attributes:
      difference: of the accuracies.
      standard_error: of it, clustered by video; None for a single item.
      low, high: its 95% interval, of a bootstrap over videos.
      p: how often swapping by chance makes a difference as large, either way; two-sided.
    """

    difference: float
    standard_error: float | None
    low: float
    high: float
    p: float


def paired_test(
    first_correct: Outcomes, second_correct: Outcomes, clusters: Sequence[str], seed: int = 0
) -> PairedTest:
    """Compares answers to the same items, in the same order.

    Args:
      first_correct, second_correct: [items] of bool.
      clusters: the video of each item.
      seed: the same seed gives the same numbers.

    Raises:
      InputError: no items, or not one answer of each model and one cluster for each.
    """
    told = paired_difference(first_correct, second_correct, clusters, seed=seed)
    gains = np.asarray(second_correct, np.float64) - np.asarray(first_correct, np.float64)
    return PairedTest(
        difference=told.value,
        standard_error=clustered_error(gains, clusters),
        low=told.low,
        high=told.high,
        p=_swap_test(gains, clusters, seed),
    )


def clustered_error(values: npt.NDArray[np.float64], clusters: Sequence[str]) -> float | None:
    """Standard error of the mean of values [items]; None for a single one."""
    count = len(values)
    if count < 2:
        return None
    away = values - values.mean()
    sums = np.bincount(np.unique(np.asarray(clusters), return_inverse=True)[1], weights=away)
    within = float(np.sum(sums**2) - np.sum(away**2)) / count**2
    return math.sqrt(max(float(away @ away) / (count - 1) / count + within, 0.0))


def _swap_test(
    gains: npt.NDArray[np.float64], clusters: Sequence[str], seed: int, swaps: int = SWAPS
) -> float:
    sums = np.bincount(np.unique(np.asarray(clusters), return_inverse=True)[1], weights=gains)
    sums = sums[sums != 0]  # swapping nothing changes nothing
    if len(sums) == 0:
        return 1.0
    rng = np.random.default_rng(seed)
    seen = abs(sums.sum()) - 1e-9
    reached, done = 0, 0
    while done < swaps:
        rows = min(max(_AT_ONCE // len(sums), 1), swaps - done)
        signs = rng.integers(0, 2, (rows, len(sums)), dtype=np.int8) * 2 - 1
        reached += int((np.abs(signs @ sums) >= seen).sum())
        done += rows
    # The labelling that was seen is one of those that are possible.
    return (reached + 1) / (swaps + 1)
