"""Curation with questions and verdicts from an endpoint that fails now and then, and is killed."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.curation.judge import Judged
from data_pipelines.curation.pipeline import CurateConfig, Curator, curate
from data_pipelines.curation.questions import Candidate, RuleQuestions
from data_pipelines.curation.written import KINDS, WrittenJudge, WrittenQuestions
from data_pipelines.errors import InputError
from data_pipelines.pairs import read_pairs
from data_pipelines.text_models.endpoint import Endpoint, EndpointConfig
from tests.data_pipelines.curation.knowing_model import (
    SAMPLING,
    Killed,
    World,
    knowing,
    read_dropped,
    results,
)
from tests.data_pipelines.text_models.loopback import serve

pytest.importorskip("openai")
MADE_FROM = {"frames": "f1"}
CONFIG = CurateConfig(
    questions="written",
    pairs=100,
    endpoint=EndpointConfig(model="small", timeout=0.7, parallel=4),
)
FAULTS = ["", 429, "", "", "cut", "", 500, "", "", "slow", "", ""]


class Describing(WrittenQuestions):
    """Captions in the words that the knowing model is asked for."""

    describe = RuleQuestions.describe


def reply(prompt: str) -> str:
    """A writer and judge who knows the grammar; some of what it says is no answer."""
    captions = re.findall(r"^\d+\. (.*)$", prompt, re.MULTILINE)
    if "Answer 1:" in prompt:
        sides = re.findall(r"^Answer \d: (.*)$", prompt, re.MULTILINE)
        if len(prompt) % 5 == 0 and "could not be read" not in prompt:
            return "Answer 1 it is."
        if len(prompt) % 7 == 0:
            return "I cannot say."
        right = "not know" not in sides[0]
        verdict = {"better": right, "unambiguous": True, "right": right, "why": "as noted"}
        return f"```json\n{json.dumps(verdict)}\n```"
    if len(prompt) % 6 == 0:
        return "None."
    if len(prompt) % 11 == 0:
        return '{"question": 7}'
    rng = np.random.default_rng(len(prompt))
    maker = RuleQuestions()
    made = (
        maker.localized(captions, [(0.0, 1.0)], rng)
        if len(captions) == 1
        else maker.comprehensive(captions, 1, rng)
    )
    if not made:
        return "None"
    return json.dumps({"question": made[0].question, "answer": made[0].expected})


def run_written(world: World, out: Path, url: str, cache: Path, killed_at: int = 0) -> None:
    endpoint = Endpoint(replace(CONFIG.endpoint, base_url=url), cache)
    endpoint.name = "small@here"  # the port differs from run to run
    curator = Curator(
        config=CONFIG,
        store=world.store,
        model=knowing(world, killed_at=killed_at),
        maker=Describing(endpoint),
        judge=WrittenJudge(endpoint),
        sampling=SAMPLING,
    )
    curate(curator, out, MADE_FROM, lambda *_: None)


def test_kills_and_errors_change_nothing(world: World, tmp_path: Path) -> None:
    with serve(reply) as server:
        run_written(world, tmp_path / "plain", server.url, tmp_path / "cache")
    with serve(reply, FAULTS) as server:
        for killed_at in (2, 3, 1, 2, 2):  # calls of the model: captions and answers, by video
            with pytest.raises(Killed):
                run_written(world, tmp_path / "killed", server.url, tmp_path / "other", killed_at)
        run_written(world, tmp_path / "killed", server.url, tmp_path / "other")
        assert len(set(server.prompts)) == len(server.prompts)  # none was answered twice
    assert results(tmp_path / "killed") == results(tmp_path / "plain")
    pairs, dropped = (
        read_pairs(tmp_path / "plain" / "pairs.jsonl"),
        read_dropped(tmp_path / "plain"),
    )
    filters = Counter(entry["filter"] for entry in dropped)
    assert {"declined", "question_unreadable", "judge_unreadable"} <= filters.keys(), filters
    assert pairs and {pair.kind for pair in pairs} <= KINDS.keys()
    assert all(pair.judge == "written 1 by small@here" for pair in pairs)
    assert all(pair.judge_said["why"] == "as noted" for pair in pairs)


def test_a_server_that_is_gone_is_named_and_the_rest_is_kept(world: World, tmp_path: Path) -> None:
    with serve(reply, [401]) as server, pytest.raises(InputError, match="AuthenticationError"):
        run_written(world, tmp_path / "pairs", server.url, tmp_path / "cache")
    assert not (tmp_path / "pairs").exists()
    with serve(reply) as server:
        run_written(world, tmp_path / "pairs", server.url, tmp_path / "cache")
    assert read_pairs(tmp_path / "pairs" / "pairs.jsonl")


class Fixed:
    """Says the same to everything, and notes what it was asked."""

    name = "fixed"

    def __init__(self, *said: str):
        self.said = list(said)
        self.asked: list[str] = []

    def complete(self, prompts: Sequence[str]) -> list[str]:
        self.asked += prompts
        return [self.said.pop(0) for _ in prompts]


VERDICT = '{"better": true, "unambiguous": false, "right": true, "why": "two dogs"}'


@pytest.mark.parametrize(
    ("said", "readable"),
    [
        ([VERDICT], True),
        ([f"Sure! {VERDICT} Anything else?"], True),
        (["Yes.", VERDICT], True),
        (["Yes.", "Yes."], False),
        (['{"better": "true", "unambiguous": true, "right": true}', "{}"], False),
        (['{"better": true, "unambiguous": true}', "[true, true, true]"], False),
        (["{better: true}", ""], False),
    ],
)
def test_a_verdict_is_read_strictly(said: list[str], readable: bool) -> None:
    model = Fixed(*said)
    candidate = Candidate(
        granularity="localized",
        kind="action",
        question="What does the dog do?",
        segment=0,
        expected="It runs.",
        evidence="1. A dog runs past another dog.",
    )
    judged = Judged(candidate=candidate, chosen="It runs.", rejected="It sleeps.")
    (verdict,) = WrittenJudge(model).judge_all([judged])
    assert verdict.readable == readable and not model.said
    assert all(
        text in model.asked[0]
        for text in ("A dog runs past", "What does the dog do?", "1: It runs.", "2: It sleeps.")
    )
    if readable:
        assert verdict.chosen_better and not verdict.unambiguous and verdict.why == "two dogs"


def test_kinds_are_drawn_by_their_shares() -> None:
    count = 20_000
    maker = WrittenQuestions(Fixed(*["None"] * count))
    made = maker.localized(["a dog"] * count, [(0.0, 1.0)] * count, np.random.default_rng(0))
    found = Counter(candidate.kind for candidate in made)
    total = sum(share for share, _ in KINDS.values())
    for kind, (share, _) in KINDS.items():
        expected = share / total
        assert abs(found[kind] / count - expected) < 5 * (expected * (1 - expected) / count) ** 0.5
