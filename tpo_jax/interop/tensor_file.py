"""One safetensors file, local or in a bucket, read a tensor at a time.

The safetensors library opens local files only. What is read here is its published format: eight
bytes with the header's length, a JSON header, and the tensors' bytes (little-endian, row-major).
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from etils import epath

from tpo_jax.errors import InputError

LENGTH_BYTES = 8
# The library's own limit; a larger one is not a header.
MAX_HEADER_BYTES = 100_000_000
METADATA = "__metadata__"
DTYPES: Mapping[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies; `start` counts from the beginning of the file."""

    path: epath.Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The tensor as stored.

        Raises:
          InputError: the file has become shorter since its header was read.
        """
        content = bytearray(self.size)
        with self.path.open("rb") as file:
            file.seek(self.start)
            view, done = memoryview(content), 0
            while done < self.size:
                count = file.readinto(view[done:])
                if not count:
                    raise InputError(f"{self.path}: ends inside {self.name}; fetch it again")
                done += count
        return np.frombuffer(content, self.dtype).reshape(self.shape)


def read_header(path: epath.Path, skipped_suffixes: tuple[str, ...] = ()) -> list[StoredTensor]:
    """The tensors of a file, but not those whose names end in `skipped_suffixes`.

    Raises:
      InputError: the file is not a whole safetensors file, or holds another dtype than `DTYPES`.
    """
    try:
        return list(_parse(path, skipped_suffixes))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: not a whole safetensors file ({reason}); fetch it again"
        ) from error


def _parse(path: epath.Path, skipped_suffixes: tuple[str, ...]) -> Iterator[StoredTensor]:
    size = path.stat().length
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
            raise ValueError("its header is cut off")
        header = json.loads(file.read(length).decode("utf-8"))
    data_start = LENGTH_BYTES + length
    end = 0
    entries = {name: entry for name, entry in header.items() if name != METADATA}
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        shape = entry["shape"]
        if not all(type(number) is int and number >= 0 for number in (start, stop, *shape)):
            raise ValueError(f"{name} has no proper shape and place")
        if start != end:
            raise ValueError(f"{name} does not begin where the tensor before it ends")
        end = stop
        if name.endswith(skipped_suffixes):
            continue
        if entry["dtype"] not in DTYPES:
            raise InputError(
                f"{path}: {name} is stored as {entry['dtype']}; only {', '.join(DTYPES)} are read"
            )
        tensor = StoredTensor(
            path=path,
            name=name,
            dtype=DTYPES[entry["dtype"]],
            shape=tuple(shape),
            start=data_start + start,
        )
        if tensor.size != stop - start:
            raise ValueError(f"{name} of shape {shape} lies in {stop - start} bytes")
        yield tensor
    if data_start + end != size:
        raise ValueError(f"it has {size} bytes, its header speaks of {data_start + end}")
