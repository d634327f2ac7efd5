"""What differs between two texts, word by word."""

from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.word_diff import compare_words

TEXTS = st.text(alphabet="ab ,.\n\u4e00\u4e01", max_size=40)


def test_by_hand() -> None:
    one, other = compare_words("The red shapes move up.", "The red shapes move left.")
    assert one == [("The red shapes move", False), (" up", True), (".", False)]
    assert other == [("The red shapes move", False), (" left", True), (".", False)]


@given(TEXTS, TEXTS, st.integers(0, 12))
def test_the_pieces_are_the_texts(one: str, other: str, most: int) -> None:
    pieces = compare_words(one, other, most)
    for text, told in zip((one, other), pieces, strict=True):
        assert "".join(piece for piece, _ in told) == text
    same = [[piece.split() for piece, differs in told if not differs] for told in pieces]
    if max(len(one), len(other)) < most:
        assert sum(same[0], []) == sum(same[1], []) or "".join(sum(same[0], [])) == "".join(
            sum(same[1], [])
        )


@given(TEXTS)
def test_equal_texts_differ_nowhere(text: str) -> None:
    assert not any(differs for told in compare_words(text, text) for _, differs in told)
