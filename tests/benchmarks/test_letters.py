"""Which option was chosen, beside what the functions of lmms-eval 0.7.3 made of the same texts.

`letters_of_lmms_eval.json` has a text, what `extract_mcq_answer` finds among A to D and among A to
F, and what LongVideoBench's `parse_multi_choice_response` finds ("" where it draws a letter). The
package itself cannot be installed beside this one: it wants an older PyAV.
"""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.letters import find_letter

RECORDED = json.loads(Path(__file__).with_name("letters_of_lmms_eval.json").read_text("utf-8"))


def test_every_recorded_text() -> None:
    rng = random.Random(0)
    for said, of_four, of_six, _ in RECORDED:
        assert find_letter(said, "ABCD", "new", rng) == of_four, said
        assert find_letter(said, "ABCDEF", "new", rng) == of_six, said
    found = Counter(of_four for _, of_four, _, _ in RECORDED)
    assert len(found) == 5 and min(found.values()) > 10  # each letter, and none


def test_longvideobench_guesses_where_it_finds_none() -> None:
    for said, _, _, letter in RECORDED:
        drawn = {find_letter(said, "AB", "longvideobench", random.Random(n)) for n in range(20)}
        assert drawn == ({letter} if letter else {"A", "B"}), said


@pytest.mark.parametrize(
    ("said", "legacy", "new"),
    [
        ("A", "A", "A"),
        ("D. A book", "D", "D"),
        ("(C) a cat", "C", "C"),
        ("Best option: (D", "B", "D"),
        ("Answer: B", "A", "B"),
        ("I think it is Because of C", "B", "C"),
        ("The man is Chinese, so A", "C", "A"),
        ("Both A and D", "B", "D"),
        ("c", "", ""),
        ("A man walks. B", "A", "A"),
        ("The best answer is B", "B", "B"),
    ],
)
def test_the_two_rules_of_video_mme(said: str, legacy: str, new: str) -> None:
    rng = random.Random(0)
    assert find_letter(said, "ABCD", "legacy", rng) == legacy
    assert find_letter(said, "ABCD", "new", rng) == new
