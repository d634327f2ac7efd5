"""The values of a serialised `tf.train.Example`, seen in its bytes instead of copied out of them.

A parser copies a record's frames twice, 14 MB each time, and holds Python's lock meanwhile. Only
what every message here is made of is read: fields with a length (wire type 2) in other such fields.
https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator

LENGTH_DELIMITED = 2


def read_example(record: bytes) -> dict[str, memoryview]:
    """Feature name -> the one value of its list: bytes, or integers as varints.

    Raises:
      ValueError: the bytes are no Example of features with one value each.
    """
    ((_, features),) = _fields(memoryview(record))  # Example.features
    found = {}
    for _, entry in _fields(features):  # Features.feature, a map
        (_, name), (_, feature) = _fields(entry)
        ((_, values),) = _fields(feature)  # bytes_list or int64_list
        ((_, value),) = _fields(values)
        found[bytes(name).decode()] = value
    return found


def read_integer(value: memoryview) -> int:
    """The non-negative integer that a value of `read_example` is."""
    return _varint(value, 0)[0]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of each field."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 != LENGTH_DELIMITED:
            raise ValueError(f"wire type {tag & 7}, not {LENGTH_DELIMITED}")
        length, at = _varint(message, at)
        if length > len(message) - at:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The integer of 7 bits a byte, lowest first, that begins at `at`, and where it ends."""
    found = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("cut off")
        found |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return found, at
