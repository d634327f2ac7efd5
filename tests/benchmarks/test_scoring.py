"""What counts as the same answer, and what does not."""

import pytest

from benchmarks.scoring import is_correct

ANSWER = "The stars are red."


@pytest.mark.parametrize(
    "said",
    ["The stars are red.", "the STARS are red", "  The stars\n are  red . ", "The stars are red!"],
)
def test_typing_does_not_count(said: str) -> None:
    assert is_correct(said, ANSWER)


@pytest.mark.parametrize(
    "said",
    [
        "",
        ".",
        "The stars are blue.",
        "The star are red.",
        "The stars are red. The stars are blue.",
        "red",
        "The stars, are red.",
    ],
)
def test_words_count(said: str) -> None:
    assert not is_correct(said, ANSWER)
