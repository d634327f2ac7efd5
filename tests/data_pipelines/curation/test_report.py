"""The page on a folder of pairs."""

import json
import re
from pathlib import Path

import pytest

from data_pipelines.curation.report import curation_page, funnel_steps, read_curation, take_turns
from data_pipelines.errors import InputError
from tests.data_pipelines.curation.knowing_model import World


def test_the_funnel_ends_with_the_pairs(undisturbed: Path) -> None:
    curation = read_curation(undisturbed)
    steps = funnel_steps(curation)
    assert steps[0] == ("candidates", curation.manifest["candidates"], 0)
    assert steps[-1] == ("pairs", curation.manifest["pairs"], 0) and len(steps) > 2
    for (_, before, _), (_, left, lost) in zip(steps, steps[1:-1], strict=False):
        assert before - lost == left
    assert steps[-2][1] == steps[-1][1]
    gone = {name.split(",")[0]: count for name, _, count in steps[1:-1]}
    assert gone == curation.manifest["dropped"]


def test_the_page_shows_pairs_and_what_was_dropped(world: World, undisturbed: Path) -> None:
    curation = read_curation(undisturbed)
    page = curation_page("Curation", curation, world.store, shown=3, dropped_shown=4).render()
    for pair in (curation.pairs[0], *(one.pair for one in take_turns(curation.dropped, 4))):
        assert pair.id in page
    for text in ("<mark>", "data:image/jpeg", "the captions say", *curation.manifest["dropped"]):
        assert text in page
    for heading in (
        "From candidates to pairs",
        "Why candidates were dropped",
        "What the pairs are",
        "How long the answers are, in words",
        "The most common answers",
        "Made from",
    ):
        assert f">{heading}</h" in page
    # The frames of both sides, the mix, and the lengths of both sides as bars.
    pair = curation.pairs[0]
    for side, positions in (("chosen", pair.chosen_frames), ("rejected", pair.rejected_frames)):
        assert f"{side}: made from {len(positions)} frame" in page
    for negative, count in curation.manifest["negatives"].items():
        assert re.search(rf"{negative}</td>\s*<td[^>]*>{count}<", page)
    assert page.count('class="bars" style="--rows: 1"') == 1  # the funnel
    assert page.count('class="bars" style="--rows: 2"') == 2  # lengths and common answers
    assert not re.search(r"(src|href)=.https?:", page) and "<script" not in page


def test_filters_take_turns(undisturbed: Path) -> None:
    dropped = read_curation(undisturbed).dropped
    names = sorted({one.filter for one in dropped})
    assert [one.filter for one in take_turns(dropped, len(names))] == names
    assert len(take_turns(dropped, 10**6)) == len(dropped)


def test_a_damaged_line_is_named(undisturbed: Path, tmp_path: Path) -> None:
    for path in undisturbed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "dropped.jsonl"
    lines = path.read_text().split("\n")
    entry = json.loads(lines[1])
    del entry["reason"]
    path.write_text("\n".join([lines[0], json.dumps(entry), *lines[2:]]))
    with pytest.raises(InputError, match=r"dropped\.jsonl:2: .*no field 'reason'"):
        read_curation(tmp_path)
