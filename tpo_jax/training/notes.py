"""The local folder of what a run writes of its steps, and what of it is kept in a bucket.

Objects in a bucket cannot be added to, and TensorBoard, W&B and the profiler write to disks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from tpo_jax.bucket import in_bucket
from tpo_jax.parallel.distributed import is_first_host
from tpo_jax.training.boards import WANDB_ID_FILE
from tpo_jax.training.run_log import BAD_BATCHES_FILE, METRICS_FILE

KEPT = (METRICS_FILE, BAD_BATCHES_FILE, WANDB_ID_FILE)


@contextmanager
def kept_notes(notes: Path, train: epath.PathLike) -> Iterator[Callable[[], None]]:
    """Lines in `notes` are first those kept in `train`, and at the end are kept there, in a bucket.

    What is given keeps them in between. It is to be called before each save, so that no checkpoint
    is ahead of its metrics. Where `train` is in no bucket, or on other hosts, nothing is done.
    """
    kept = epath.Path(train)
    if not in_bucket(kept) or not is_first_host():
        yield lambda: None
        return

    def keep() -> None:
        for name in KEPT:
            if (notes / name).exists():
                (kept / name).write_bytes((notes / name).read_bytes())

    notes.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        (notes / name).unlink(missing_ok=True)  # of a run that may not have been this one
        if (kept / name).exists():
            (notes / name).write_bytes((kept / name).read_bytes())
    try:
        yield keep
    finally:
        keep()
