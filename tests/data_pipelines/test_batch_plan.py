"""The plan of a run: every pair, its bucket, and what hosts see of it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.batch_plan import BatchPlan, plan_batches, plan_once


def plan_one(pairs: int, **settings: int) -> BatchPlan:
    """With one bucket."""
    return plan_batches(range(pairs), [0] * pairs, **settings)


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 8), st.integers(0, 5))
def test_every_pair_comes_once_an_epoch(pairs: int, steps: int, batch: int, seed: int) -> None:
    plan = plan_one(pairs, steps=steps, batch=batch, seed=seed)
    assert plan.numbers_SB.shape == (steps, batch) and plan.numbers_SB.dtype == np.int64
    order = plan.numbers_SB.reshape(-1)
    rng = np.random.default_rng(seed)
    epochs = [rng.permutation(pairs) for _ in range(-(-steps * batch // pairs))]
    np.testing.assert_array_equal(order, np.concatenate(epochs)[: len(order)])


buckets_lists = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(buckets_lists, st.integers(1, 12), st.integers(1, 5), st.integers(0, 5))
def test_batches_are_of_one_bucket_where_they_can_be(
    buckets: list[int], steps: int, batch: int, seed: int
) -> None:
    plan = plan_batches(range(len(buckets)), buckets, steps=steps, batch=batch, seed=seed)
    of_pairs = np.array(buckets)[plan.numbers_SB]
    np.testing.assert_array_equal(of_pairs.max(axis=1), plan.buckets_S)
    epochs = max(steps * batch // len(buckets), 1)
    # At the end of an epoch fewer than a batch of each bucket wait for others.
    mixed = (of_pairs != plan.buckets_S[:, None]).any(axis=1).sum()
    assert mixed <= (epochs + 1) * len(set(buckets))
    longer = plan_batches(range(len(buckets)), buckets, steps=steps + 3, batch=batch, seed=seed)
    np.testing.assert_array_equal(longer.numbers_SB[:steps], plan.numbers_SB)


@given(buckets_lists, st.integers(1, 5), st.integers(0, 5))
def test_no_pair_waits_long(buckets: list[int], batch: int, seed: int) -> None:
    """After n epochs' worth of steps none came more than n times, and fewer than a batch lack."""
    count, epochs = len(buckets), 4
    steps = epochs * count // batch
    plan = plan_batches(range(count), buckets, steps=steps, batch=batch, seed=seed)
    times = np.bincount(plan.numbers_SB.reshape(-1), minlength=count)
    assert times.max() <= epochs and (epochs - times).sum() < batch


def test_weights_are_repetitions() -> None:
    plan = plan_batches([0, 0, 1], [0, 0], steps=30, batch=1, seed=0)
    assert np.bincount(plan.numbers_SB.reshape(-1)).tolist() == [20, 10]


def test_seeds_and_epochs_differ() -> None:
    plan = plan_one(50, steps=20, batch=5, seed=1).numbers_SB
    assert (plan_one(50, steps=20, batch=5, seed=2).numbers_SB != plan).any()
    assert (plan[:10] != plan[10:]).any()
    assert (plan[:10].reshape(-1) != np.arange(50)).any()


@given(buckets_lists, st.integers(1, 5))
def test_once_is_once(buckets: list[int], batch: int) -> None:
    plan = plan_once(buckets, batch=batch)
    of_pairs = np.array(buckets)[plan.numbers_SB]
    assert (of_pairs == plan.buckets_S[:, None]).all()
    seen = [number for row in plan.numbers_SB for number in np.unique(row)]
    assert sorted(seen) == list(range(len(buckets)))
    assert (np.diff(plan.numbers_SB, axis=1) >= 0).all()
