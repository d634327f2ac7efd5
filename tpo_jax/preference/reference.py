"""Log-probs of the reference, computed once before training and joined to pairs by id.

The reference is the model as it was before the first step, so its log-probs on fixed rows never
change. Stored as parts of a batch each, so that a killed run computes only what is missing.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import Params
from tpo_jax.preference.logprobs import Batch, row_logprobs
from tpo_jax.training.step import cast

ReferenceStep = Callable[[Params, Batch], jax.Array]


def make_reference_step(graph: nnx.GraphDef, compute_dtype: jnp.dtype) -> ReferenceStep:
    """(params, batch) -> log-probs fp32 [B, 2, S+A]; the same forward as in the training step."""

    def reference_step(params: Params, batch: Batch) -> jax.Array:
        return row_logprobs(nnx.merge(graph, cast(params, compute_dtype)), batch)

    return reference_step


def part_path(folder: Path, number: int) -> Path:
    """Where batch `number` of the table is stored."""
    return folder / f"part-{number:05d}.npz"


def write_part(folder: Path, number: int, ids: list[str], logprobs_N2L: np.ndarray) -> None:
    """Store one batch; the file appears under its name only when whole."""
    path = part_path(folder, number)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, ids=np.array(ids), logprobs=logprobs_N2L.astype(np.float32))
    temporary.replace(path)


def read_table(folder: Path) -> dict[str, np.ndarray]:
    """Pair id -> log-probs fp32 [2, S+A]: the prompt's targets, then the answer's."""
    table: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("part-*.npz")):
        try:
            with np.load(path, allow_pickle=False) as part:
                ids, logprobs_N2L = part["ids"], part["logprobs"]
            if logprobs_N2L.dtype != np.float32 or logprobs_N2L.ndim != 3:
                raise ValueError(f"logprobs are {logprobs_N2L.dtype} {list(logprobs_N2L.shape)}")
            table |= dict(zip(map(str, ids), logprobs_N2L, strict=True))
        except Exception as error:  # numpy, zipfile, zlib and tokenize raise each their own
            raise InputError(
                f"{path}: cannot be read ({error}); delete {folder} and run `tpo reference` again"
            ) from error
    return table
