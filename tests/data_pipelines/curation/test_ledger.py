"""The ledger: what was added is there after any end, a torn line is not."""

from pathlib import Path

import pytest

from data_pipelines.curation.ledger import Ledger
from data_pipelines.errors import InputError

RESULT = {"captions": ["a\u2028b", "Grün\n\r\x85"], "kept": [{"score": 0.1}], "dropped": []}


def test_results_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    assert len(ledger) == 0 and "a" not in ledger
    ledger.add("a", RESULT)
    ledger.add("b", [])
    for one in (ledger, Ledger(path)):
        assert len(one) == 2 and "a" in one and "b" in one and "c" not in one
        assert one["a"] == RESULT and one["b"] == []
    with pytest.raises(KeyError):
        ledger["c"]


def test_a_result_is_the_same_before_and_after_a_restart(tmp_path: Path) -> None:
    # Else an undisturbed run and a continued one could write different pairs.
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add("a", {"segment": (0.0, 1.5), 3: 4})
    assert ledger["a"] == Ledger(tmp_path / "ledger.jsonl")["a"] == {"segment": [0.0, 1.5], "3": 4}


def test_a_line_is_on_disk_when_add_returns(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for number in range(3):
        ledger.add(str(number), RESULT)
        assert len(Ledger(path)) == number + 1
    assert path.read_bytes().count(b"\n") == 3


def test_a_torn_last_line_is_forgotten_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.add("a", RESULT)
    first = len(path.read_bytes())
    ledger.add("b", RESULT)
    data = path.read_bytes()
    for cut in range(first, len(data)):  # also between the bytes of one character
        path.write_bytes(data[:cut])
        again = Ledger(path)
        assert "a" in again and "b" not in again
        again.add("b", RESULT)
        assert path.read_bytes() == data
        assert Ledger(path)["b"] == RESULT
    path.write_bytes(data[:5])
    assert len(Ledger(path)) == 0 and path.read_bytes() == b""


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b'{"key": "b"}', b'{"key": [], "result": 0}', b"\xff"]
)
def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).add("a", RESULT)
    data = path.read_bytes()
    path.write_bytes(data + line + b"\n" + data)
    with pytest.raises(InputError, match=r"ledger\.jsonl:2: damaged.*delete the line"):
        Ledger(path)
    assert path.read_bytes() == data + line + b"\n" + data
