"""Our reading of a safetensors file is the library's."""

import json
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from tpo_jax.errors import InputError
from tpo_jax.interop.tensor_file import DTYPES, read_header

dtypes = st.sampled_from(list(DTYPES.values()))
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
tensors = st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(dtypes, shapes), max_size=5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tensors)
def test_every_tensor_is_what_the_library_reads(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict
) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        name: np.asarray(rng.normal(size=shape)).astype(dtype)
        for name, (dtype, shape) in wanted.items()
        if name != "__metadata__"
    }
    content = save(arrays, metadata={"format": "pt"})
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    path.write_bytes(content)
    found = {tensor.name: tensor for tensor in read_header(epath.Path(path))}
    library = load_file(path)
    assert found.keys() == library.keys()
    for name, tensor in found.items():
        array = tensor.read()
        assert array.dtype == library[name].dtype == tensor.dtype
        assert array.shape == library[name].shape == tensor.shape
        assert array.tobytes() == library[name].tobytes()


def whole() -> bytes:
    return save({"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), jnp.bfloat16)})


def header(**entries: object) -> Callable[[bytes], bytes]:
    def change(_: bytes) -> bytes:
        text = json.dumps(entries).encode()
        return len(text).to_bytes(8, "little") + text + bytes(8)

    return change


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "header is cut off"),
    "only a length": (lambda content: content[:8], "header is cut off"),
    "a huge length": (lambda content: b"\xff" * 8 + content[8:], "header is cut off"),
    "header no JSON": (lambda content: content[:8] + b"x" + content[9:], "not a whole"),
    "header no object": (lambda _: (2).to_bytes(8, "little") + b"[]", "not a whole"),
    "data cut off": (lambda content: content[:-1], "header speaks of"),
    "data too long": (lambda content: content + b"\0", "header speaks of"),
    "no offsets": (header(a={"dtype": "F32", "shape": [2]}), "data_offsets"),
    "offsets overlap": (
        header(
            a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            b={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        ),
        "does not begin where",
    ),
    "a hole": (
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}),
        "does not begin where",
    ),
    "negative": (
        header(a={"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}),
        "proper shape",
    ),
    "wrong size": (
        header(a={"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}),
        "of shape [3] lies in 8 bytes",
    ),
    "another dtype": (
        header(a={"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}),
        "a is stored as I64; only F32, F16, BF16",
    ),
    "entry no object": (header(a=5), "not a whole"),
    "deeply nested": (
        lambda _: (10**5).to_bytes(8, "little") + b"[" * 10**5,
        "not a whole",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    spoil, said = BAD[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(spoil(whole()))
    with pytest.raises(InputError) as caught:
        read_header(epath.Path(path))
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert said in message


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole())
    tensors = read_header(epath.Path(path))
    path.write_bytes(whole()[:-20])
    with pytest.raises(InputError, match="ends inside"):
        for tensor in tensors:
            tensor.read()


def test_names_to_skip_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"x.inv_freq": np.ones(2, "f4"), "y": np.ones(1, "f4")}))
    assert [t.name for t in read_header(epath.Path(path), (".inv_freq",))] == ["y"]
