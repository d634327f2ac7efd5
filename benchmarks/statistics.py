"""How sure a score is: bootstrap intervals that take a video's questions as one draw.

Questions about one video are not independent: a video that is hard for one is hard for the others.
Drawing questions one by one would give intervals that are too narrow, so whole videos are drawn
(the cluster bootstrap, with percentile intervals; Efron and Tibshirani, An Introduction to the
Bootstrap, chapter 13). With fewer than about twenty videos the intervals are still somewhat too
narrow, and a score of exactly 0 or 1 gets an interval without width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_pipelines.errors import InputError

Outcomes = Sequence[bool] | npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and the 95% interval around it."""

    value: float
    low: float
    high: float


def accuracy_interval(
    correct: Outcomes, clusters: Sequence[str], samples: int = 2000, seed: int = 0
) -> Interval:
    """The part of the items that is correct.

    Args:
      correct: [items] of bool.
      clusters: the video of each item. With one video alone, nothing is known about others: the
        interval is then the whole range.
      samples: bootstrap samples.
      seed: the same seed gives the same interval.

    Raises:
      InputError: no items, or not one cluster for each.
    """
    return _cluster_bootstrap(_numbers(correct), clusters, (0.0, 1.0), samples, seed)


def paired_difference(
    base_correct: Outcomes,
    new_correct: Outcomes,
    clusters: Sequence[str],
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Accuracy of the new model less that of the base, both asked the same items in the same order.

    What an item adds to both falls out of the difference, so this is much narrower than what two
    separate intervals suggest. Arguments and errors as `accuracy_interval`.
    """
    base, new = _numbers(base_correct), _numbers(new_correct)
    if len(base) != len(new):
        raise InputError(
            f"{len(base)} answers of the base, {len(new)} of the new model; score both"
        )
    return _cluster_bootstrap(new - base, clusters, (-1.0, 1.0), samples, seed)


def crossed_interval(
    values_SI: npt.NDArray[np.float64],
    clusters: Sequence[str],
    samples: int = 2000,
    seed: int = 0,
    whole_range: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """The mean over training seeds and items, when both other seeds and other videos are drawn.

    Seeds and videos are crossed: every seed answers every item. Each bootstrap sample draws videos
    and, independently, seeds, both with replacement, which is somewhat too wide rather than
    too narrow (Owen, The pigeonhole bootstrap, 2007).

    Args:
      values_SI: float [seeds, items], such as 1 where an answer is right, or the difference of two
        models' on the same item.
      clusters: the video of each item.
      samples: bootstrap samples.
      seed: of the bootstrap; the same gives the same interval.
      whole_range: the interval where there is one video only.

    Raises:
      InputError: no items, or not one cluster for each.
    """
    seeds, count = values_SI.shape
    if seeds == 1:
        return _cluster_bootstrap(values_SI[0], clusters, whole_range, samples, seed)
    if not count or count != len(clusters):
        raise InputError(f"{count} scored items in {len(clusters)} clusters; one for each")
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    value = float(values_SI.mean())
    if len(names) == 1:
        return Interval(value=value, low=whole_range[0], high=whole_range[1])
    sums_SC = np.stack([np.bincount(cluster_of, weights=row) for row in values_SI])
    sizes_C = np.bincount(cluster_of)
    rng = np.random.default_rng(seed)
    videos = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    trained = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples)
    totals = np.einsum("ns,sc,nc->n", trained, sums_SC, videos, optimize=True)
    low, high = np.percentile(totals / (seeds * (videos @ sizes_C)), [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))


def _numbers(outcomes: Outcomes) -> npt.NDArray[np.float64]:
    return np.asarray(outcomes, dtype=np.float64)


def _cluster_bootstrap(
    values: npt.NDArray[np.float64],
    clusters: Sequence[str],
    whole_range: tuple[float, float],
    samples: int,
    seed: int,
) -> Interval:
    """The mean of `values` [items] and its interval when clusters are drawn with replacement."""
    if len(values) == 0 or len(values) != len(clusters):
        raise InputError(f"{len(values)} scored items in {len(clusters)} clusters; one for each")
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    value = float(values.mean())
    if len(names) == 1:
        return Interval(value=value, low=whole_range[0], high=whole_range[1])
    sums = np.bincount(cluster_of, weights=values)
    sizes = np.bincount(cluster_of)
    # How often each cluster is drawn, [samples, clusters]: all a sample's mean depends on.
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    low, high = np.percentile((drawn @ sums) / (drawn @ sizes), [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))
