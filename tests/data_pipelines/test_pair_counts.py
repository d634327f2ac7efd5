"""What is counted of pairs, and what the dataset card says of it."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from data_pipelines.pair_card import LISTED, origin_warnings, render_card
from data_pipelines.pair_counts import count_rows, find_useless
from data_pipelines.pair_formats.row import Row

ROW = Row(
    where="a.jsonl:1",
    video="cat.mp4",
    question="What does it do?",
    chosen="It sleeps all day.",
    rejected="It runs.",
)


@pytest.fixture
def tokenizer() -> Tokenizer:
    """Words, with capitals and composed accents folded away."""
    words = ["[UNK]", "it", "sleeps", "runs", "all", "day", ".", "café"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def say(chosen: str, rejected: str | None, **fields: str) -> Row:
    return replace(ROW, chosen=chosen, rejected=rejected, **fields)  # type: ignore[arg-type]


def test_pairs_are_counted_by_what_they_are() -> None:
    rows = [
        ROW,
        ROW,  # says the same
        say("It sleeps.", None),  # for SFT
        say("It runs.", "It runs.", video="dog.mp4"),
        replace(ROW, question="Why?", granularity="localized"),
    ]
    counts = count_rows(rows)
    assert (counts.rows, counts.videos, counts.without_rejected) == (5, 2, 1)
    assert counts.granularity == {"not told": 4, "localized": 1}
    assert (counts.duplicates, counts.same_question) == (1, 2)
    assert (counts.identical, counts.identical_tokens) == (1, None)
    assert (counts.chosen_longer, counts.rejected_longer) == (3, 0)
    assert find_useless(rows) == {1: "duplicate", 3: "identical"}
    assert counts.as_json()["chosen"]["most"] == 4


def test_the_same_answer_about_another_video_is_no_duplicate() -> None:
    rows = [ROW, replace(ROW, video="b.mp4"), replace(ROW, question="?"), say("It sleeps", None)]
    assert find_useless([*rows, replace(ROW, rejected=None)]) == {}


def test_lengths_are_words_in_steps_that_double() -> None:
    rows = [say("word " * count, "a b c") for count in (1, 2, 3, 4, 7, 8, 20)]
    counts = count_rows(rows)
    assert counts.unit == "words"
    assert counts.chosen.histogram == {"1": 1, "2-3": 2, "4-7": 2, "8-15": 1, "16-31": 1}
    assert counts.rejected.histogram == {"2-3": 7}
    assert (counts.chosen.least, counts.chosen.middle, counts.chosen.most) == (1, 4.0, 20)
    assert counts.chosen.mean == pytest.approx(45 / 7)
    assert (counts.chosen_longer, counts.rejected_longer) == (4, 2)
    only = count_rows([say("...", None)])
    assert only.chosen.histogram == {"0": 1} and only.rejected.histogram == {}
    gap = count_rows([say("a", None), say("word " * 9, None)])
    assert gap.chosen.histogram == {"1": 1, "2-3": 0, "4-7": 0, "8-15": 1}


def test_answers_of_the_same_tokens_are_found(tokenizer: Tokenizer) -> None:
    rows = [
        say("It runs.", "it runs ."),
        say("caf\u00e9", "cafe\u0301"),
        say("It runs.", "It sleeps."),
        say("It runs.", "It runs."),
        say("It runs.", None),
    ]
    assert find_useless(rows, tokenizer) == {
        0: "identical_tokens",
        1: "identical_tokens",
        3: "identical",
    }
    counts = count_rows(rows, tokenizer)
    assert (counts.unit, counts.identical, counts.identical_tokens) == ("tokens", 1, 2)
    assert counts.chosen.histogram == {"1": 1, "2-3": 4}


@pytest.mark.parametrize(
    ("chosen", "rejected", "found"),
    [
        ("It sleeps.", "I think it sleeps, yes.", (1, 0)),
        ("I think it sleeps, yes.", "It sleeps.", (0, 1)),
        ("red", "reddish", (0, 0)),
        ("It sleeps.", "it sleeps", (0, 0)),
        ("...", "It sleeps", (0, 0)),
        ("It sleeps.", None, (0, 0)),
    ],
)
def test_an_answer_within_the_other(
    chosen: str, rejected: str | None, found: tuple[int, int]
) -> None:
    counts = count_rows([say(chosen, rejected)])
    assert (counts.chosen_in_rejected, counts.rejected_in_chosen) == found


def test_what_is_not_known_is_warned_of() -> None:
    told = replace(ROW, source="web", licence="MIT", generator="demo")
    counts = count_rows([ROW, told, replace(told, licence="")])
    assert counts.licences == {"unknown": 2, "MIT": 1}
    assert counts.unknown() == {"source": 1, "licence": 2, "generator": 1}
    assert origin_warnings(counts)[1] == (
        "2 of 3 pairs do not say their licence; --licence=TEXT says it of them"
    )
    assert origin_warnings(count_rows([told])) == []


def test_the_card_sums_up_where_pairs_come_from() -> None:
    rows = [
        replace(ROW, source=f"s{n:02}", licence="a|b\n<i>", generator="demo") for n in range(25)
    ]
    card = render_card("pets", count_rows(rows))
    assert card.startswith("# pets\n") and "| pairs | 25 |" in card
    assert "| a\\|b &lt;i> | 25 |" in card and "| demo | 25 |" in card
    assert card.count("| s") == LISTED and f"| {25 - LISTED} others | |" in card
    assert "Not known" not in card
    assert "Not known of all pairs: source (1)" in render_card("a", count_rows([ROW]))
    assert "words of rejected" not in render_card("a", count_rows([say("a", None)]))
