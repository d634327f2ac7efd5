"""What is seen in a record's bytes is what TFDS parses out of them."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from data_pipelines.example_bytes import read_example, read_integer


@given(
    names=st.lists(st.text(max_size=200), unique=True, max_size=5),
    content=st.binary(max_size=300),
    number=st.integers(0, 2**62),
)
def test_every_value_is_found(names: list[str], content: bytes, number: int) -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    for place, name in enumerate(names):
        example.features.feature[name].bytes_list.value.append(content * place)
    example.features.feature["the number"].int64_list.value.append(number)
    found = read_example(example.SerializeToString())
    assert set(found) == {*names, "the number"}
    assert read_integer(found["the number"]) == number
    for place, name in enumerate(names):
        if name != "the number":
            assert bytes(found[name]) == content * place


def test_frames_are_not_copied() -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["frames"].bytes_list.value.append(bytes(range(256)))
    record = example.SerializeToString()
    seen = np.frombuffer(read_example(record)["frames"], np.uint8)
    assert np.shares_memory(seen, np.frombuffer(record, np.uint8))


@pytest.mark.parametrize("record", [b"\x0a\x05ab", b"\x08\x01", b"\x0a", b"\x0a\xff", b""])
def test_other_bytes_are_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        read_example(record)
