"""Questions that people already have."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.curation.config import CurateConfig
from data_pipelines.curation.given import read_given
from data_pipelines.curation.judge import NoJudge
from data_pipelines.curation.pipeline import Curator, curate
from data_pipelines.errors import InputError
from data_pipelines.pairs import read_pairs
from tests.data_pipelines.curation.knowing_model import SAMPLING, UNKNOWN, World, knowing


def asked_of(world: World, number: int) -> tuple[str, str]:
    """Two questions about the whole of a video: how it begins and how it ends."""
    events = [shown.event for shown in world.timelines[world.store.videos[number]]]
    return (
        f"What comes right after the {events[0].colour} thing?",
        f"What comes right before the {events[-1].colour} thing?",
    )


def items(world: World) -> list[dict[str, Any]]:
    """One item a video, in both forms, and one about a video that is not there."""
    names = [world.store.info(video).names[0] for video in world.store.videos]
    (first, last), (other, _) = asked_of(world, 0), asked_of(world, 1)
    turns = [
        {"from": "human", "value": f"<image>\n{first}"},
        {"from": "gpt", "value": "It begins."},
        {"from": "human", "value": last},
        {"from": "gpt", "value": "It ends."},
    ]
    return [
        {"id": "x", "data_source": "y", "video": f"academic/{names[0]}", "conversations": turns},
        {"video": names[1], "question": other, "answer": "It begins."},
        {"video": "elsewhere.mp4", "question": first, "answer": "No."},
    ]


@pytest.mark.parametrize("lines", [False, True])
def test_both_forms_of_items_and_of_files(world: World, tmp_path: Path, lines: bool) -> None:
    path, told = tmp_path / "qa.json", items(world)
    path.write_text("\n".join(map(json.dumps, told)) if lines else json.dumps(told))
    given = read_given(path, world.store)
    one, other, _ = world.store.videos
    (first, last), (first_of_other, _) = asked_of(world, 0), asked_of(world, 1)
    assert given.by_video == {
        one: [(first, "It begins."), (last, "It ends.")],
        other: [(first_of_other, "It begins.")],
    }
    assert given.elsewhere == 1


@pytest.mark.parametrize("chosen", ["model", "file"])
def test_pairs_of_given_questions(world: World, tmp_path: Path, chosen: Any) -> None:
    path = tmp_path / "qa.json"
    path.write_text(json.dumps(items(world)))
    curator = Curator(
        config=CurateConfig(
            questions="file", judge="none", given_chosen=chosen, pairs=9, localized_share=0.0
        ),
        store=world.store,
        model=knowing(world),
        maker=read_given(path, world.store),
        judge=NoJudge(),
        sampling=SAMPLING,
    )
    curate(curator, tmp_path / "pairs", {}, lambda *_: None)
    pairs = read_pairs(tmp_path / "pairs" / "pairs.jsonl")
    assert len(pairs) == 3 and {pair.kind for pair in pairs} == {"given"}
    for pair in pairs:
        assert pair.rejected == UNKNOWN and pair.negative == "incomplete"
        assert pair.made_with["chosen_by"] == chosen
        assert pair.made_with["judge_reads"] == "the answer that came with the question"
        said = "It ends." if "before" in pair.question else "It begins."
        assert (pair.chosen == said) == (chosen == "file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{", r"qa\.json: not JSON"),
        ('{"video": "a"}\n{', r"qa\.json:2: not JSON|qa\.json:1"),
        ('[{"question": "q", "answer": "a"}]', "item 1: names no video"),
        ('[{"video": "a", "question": "q"}]', "item 1: has no question and answer"),
        ('[{"video": "a", "question": " ", "answer": "a"}]', "item 1: .* is empty"),
        ('[{"video": "a", "conversations": [{"value": "q"}]}]', "a question .* has no answer"),
        ('[{"video": "a", "conversations": "q"}]', "no list of turns"),
        ('[{"video": "a", "question": "q", "answer": "a"}]', "none of its 1 questions"),
    ],
)
def test_mistakes_name_the_item(world: World, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "qa.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_given(path, world.store)
