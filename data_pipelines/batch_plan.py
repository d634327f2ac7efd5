"""Which pairs make which batch: one seeded array for the whole run, the same on every host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchPlan:
    """The batches of a run, over all hosts.

    Attributes:
      numbers_SB: int64 [steps, batch], pair numbers.
      buckets_S: int64 [steps], the shape of each batch: that of its longest pair.
    """

    numbers_SB: Numbers
    buckets_S: Numbers

    def __len__(self) -> int:
        """Steps."""
        return len(self.numbers_SB)


def plan_batches(
    numbers: Sequence[int] | Numbers,
    buckets: Sequence[int] | Numbers,
    *,
    steps: int,
    batch: int,
    seed: int,
) -> BatchPlan:
    """Batches of pairs of one bucket each, as far as there are enough of them.

    Every epoch is a new permutation. A pair waits in its bucket until `batch` of them are there;
    at the end of an epoch those that still wait are put together, shorter ones first, each batch
    with the bucket of its longest. Fewer than `batch` go over into the next epoch. With one bucket
    that is permutations joined end to end. A longer run begins as a shorter one does.

    Args:
      numbers: pair numbers of an epoch; one may come several times.
      buckets: of every pair, by number; a higher one is longer.
      steps: of the run.
      batch: pairs of a step, over all hosts.
      seed: of the permutations.
    """
    batches = _batches(np.asarray(numbers, np.int64), np.asarray(buckets, np.int64), batch, seed)
    planned = [next(batches) for _ in range(steps)]
    return BatchPlan(
        numbers_SB=np.array([one for one, _ in planned], np.int64).reshape(steps, batch),
        buckets_S=np.array([bucket for _, bucket in planned], np.int64),
    )


def plan_once(buckets: Sequence[int] | Numbers, *, batch: int) -> BatchPlan:
    """Every pair once, in batches of one bucket; the last of a bucket is filled with its last."""
    buckets = np.asarray(buckets, np.int64)
    rows, of_rows = [], []
    for bucket in np.unique(buckets).tolist():
        numbers = np.flatnonzero(buckets == bucket)
        places = np.minimum(np.arange(-(-len(numbers) // batch) * batch), len(numbers) - 1)
        rows.append(numbers[places].reshape(-1, batch))
        of_rows.append(np.full(len(rows[-1]), bucket))
    return BatchPlan(numbers_SB=np.concatenate(rows), buckets_S=np.concatenate(of_rows))


def _batches(
    numbers: Numbers, buckets: Numbers, batch: int, seed: int
) -> Iterator[tuple[list[int], int]]:
    """(pair numbers, bucket) without end."""
    rng = np.random.default_rng(seed)
    waiting: dict[int, list[int]] = {bucket: [] for bucket in np.unique(buckets).tolist()}
    while True:
        for number in numbers[rng.permutation(len(numbers))].tolist():
            queue = waiting[buckets[number]]
            queue.append(number)
            if len(queue) == batch:
                yield queue.copy(), int(buckets[number])
                queue.clear()
        left = [number for queue in waiting.values() for number in queue]
        while len(left) >= batch:
            made, left = left[:batch], left[batch:]
            yield made, int(buckets[made].max())
        for bucket, queue in waiting.items():
            queue[:] = [number for number in left if buckets[number] == bucket]
