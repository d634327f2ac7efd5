"""Curation with captions, questions and verdicts from language models, failing and killed."""

import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.curation.candidates import TextQuestions
from data_pipelines.curation.config import CurateConfig
from data_pipelines.curation.judge import Judged
from data_pipelines.curation.pipeline import Curator, TextJudge, curate
from data_pipelines.curation.questions import Candidate, RuleQuestions
from data_pipelines.curation.written import AGAIN, KINDS, draw_kinds, judge_prompt, read_verdict
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
    questions="endpoint",
    judge="endpoint",
    pairs=100,
    endpoint=EndpointConfig(model="small", timeout=0.7, parallel=4, backoff=0.01, videos_at_once=2),
)
FAULTS = ["", 429, "", "", "cut", "", 500, "", "", "garbage", "", "slow"]


@dataclass(frozen=True, kw_only=True)
class Describing(TextQuestions):
    """Captions in the words that the knowing model is asked for."""

    describe: str = RuleQuestions.describe


def reply(prompt: str) -> str:
    """A writer and judge who knows the grammar; some of what it says is no answer."""
    captions = re.findall(r"^(?:\d+ to \d+ s: )?([A-Z]\w+ thing .*)$", prompt, re.MULTILINE)
    mood = zlib.crc32(prompt.removesuffix(AGAIN).encode())  # a second try is in the same
    if "Answer 1:" in prompt:
        sides = re.findall(r"^Answer \d: (.*)$", prompt, re.MULTILINE)
        if mood % 3 == 0 and not prompt.endswith(AGAIN):
            return "Answer 1 it is."
        if mood % 4 == 0:
            return "I cannot say."
        (chosen,) = re.findall(r"^right: answer (\d) is correct", prompt, re.MULTILINE)
        right = "not know" not in sides[int(chosen) - 1]
        verdict = {"better": right, "unambiguous": True, "right": right, "why": "as noted"}
        return f"```json\n{json.dumps(verdict)}\n```"
    if mood % 6 == 0:
        return "None."
    if mood % 5 == 0:
        return '{"question": 7}'
    rng = np.random.default_rng(mood)
    maker = RuleQuestions()
    made = (
        maker.localized(captions, [(0.0, 1.0)], rng)
        if len(captions) == 1
        else maker.comprehensive(captions, 1, rng)
    )
    if not made:
        return "None"
    return json.dumps({"question": made[0].question, "answer": made[0].expected})


def run_written(
    world: World,
    out: Path,
    url: str,
    work: Path,
    killed_at: int = 0,
    config: CurateConfig = CONFIG,
    **changes: Any,
) -> int:
    """Curate; how often the model was called."""
    endpoint = Endpoint(replace(config.endpoint, base_url=url), work / "endpoint.jsonl")
    endpoint.name = endpoint.identity = "small@here"  # the port differs from run to run
    model = knowing(world, killed_at=killed_at, **changes)
    curator = Curator(
        config=config,
        store=world.store,
        model=model,
        maker=Describing(model=endpoint),
        judge=TextJudge(model=endpoint),
        sampling=SAMPLING,
    )
    curate(curator, out, MADE_FROM, lambda *_: None, work)
    return len(model.calls)


def test_kills_and_errors_change_nothing(world: World, tmp_path: Path) -> None:
    with serve(reply) as server:
        run_written(world, tmp_path / "plain", server.url, tmp_path / "cache")
    with serve(reply, FAULTS) as server:
        for killed_at in (1, 2, 2, 1, 1):  # calls of the model, captions and answers
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
    assert all(pair.judge == "written 2 by small@here" for pair in pairs)
    assert all(pair.judge_said["why"] == "as noted" for pair in pairs)


def test_a_server_that_is_gone_is_named_and_the_rest_is_kept(world: World, tmp_path: Path) -> None:
    with serve(reply, [401]) as server, pytest.raises(InputError, match="refuses"):
        run_written(world, tmp_path / "pairs", server.url, tmp_path / "cache")
    assert not (tmp_path / "pairs").exists()
    with serve(reply) as server:
        run_written(world, tmp_path / "pairs", server.url, tmp_path / "cache")
    assert read_pairs(tmp_path / "pairs" / "pairs.jsonl")


def test_nothing_is_asked_about_a_segment_without_a_caption(world: World, tmp_path: Path) -> None:
    one, other, _ = world.store.videos
    captions = {(one, 1): ""} | {(other, number): "" for number in range(99)}
    with serve(reply) as server:
        run_written(world, tmp_path / "p", server.url, tmp_path / "w", captions=captions)
    entries = read_dropped(tmp_path / "p")
    gone = [entry for entry in entries if entry["filter"] == "no_caption"]
    (of_one,) = [entry for entry in gone if entry["video_id"] == one]
    assert of_one["granularity"] == "localized"
    # Of the other there is nothing to tell at all.
    of_other = [entry for entry in entries if entry["video_id"] == other]
    assert of_other and all(entry["filter"] == "no_caption" for entry in of_other)
    assert {entry["granularity"] for entry in of_other} == {"localized", "comprehensive"}
    pairs = read_pairs(tmp_path / "p" / "pairs.jsonl")
    assert one in {pair.video_id for pair in pairs} and other not in {p.video_id for p in pairs}
    assert of_one["segment"] not in [pair.segment for pair in pairs if pair.video_id == one]


def test_another_judge_asks_nothing_else_again(world: World, tmp_path: Path) -> None:
    work = tmp_path / "work"
    with serve(reply) as server:
        assert run_written(world, tmp_path / "one", server.url, work) == 6
    lines = {path.name: len(path.read_text().splitlines()) for path in work.glob("*.jsonl")}
    assert lines["captions.jsonl"] == lines["answers.jsonl"] == 3
    (work / "verdicts.jsonl").unlink()
    with serve(reply) as server:
        assert run_written(world, tmp_path / "two", server.url, work) == 0
        assert server.prompts and all("Answer 1:" in prompt for prompt in server.prompts)
    assert results(tmp_path / "one") == results(tmp_path / "two")


VERDICT = '{"better": true, "unambiguous": false, "right": true, "why": "two dogs"}'


@pytest.mark.parametrize(
    ("said", "readable"),
    [
        (VERDICT, True),
        (f"Sure! {VERDICT} Anything else?", True),
        ("Yes.", False),
        ('{"better": "true", "unambiguous": true, "right": true}', False),
        ('{"better": true, "unambiguous": true}', False),
        ("[true, true, true]", False),
        ("{better: true}", False),
        ("", False),
    ],
)
def test_a_verdict_is_read_strictly(said: str, readable: bool) -> None:
    verdict = read_verdict(said)
    assert (verdict is not None) == readable
    if verdict is not None:
        assert verdict.chosen_better and verdict.chosen_right and verdict.readable
        assert not verdict.unambiguous and verdict.why == "two dogs"


@pytest.mark.parametrize("given", [False, True])
def test_a_judge_reads_evidence_question_and_answers(given: bool) -> None:
    candidate = Candidate(
        granularity="localized",
        kind="action",
        question="What does the dog do?",
        segment=0,
        expected="It runs.",
        evidence="A dog runs past another dog.",
        given=given,
    )
    firsts = []
    for number in range(200):
        chosen, rejected = f"It runs {number}.", "It sleeps."
        prompt = judge_prompt(Judged(candidate=candidate, chosen=chosen, rejected=rejected))
        first = f"Answer 1: {chosen}\n" in prompt
        firsts.append(first)
        one, other = (1, 2) if first else (2, 1)
        told = (
            "A dog runs past",
            "What does the dog do?",
            f"Answer {one}: {chosen}\n",
            f"Answer {other}: {rejected}\n",
            f"better: answer {one} is a better answer than answer {other}.",
            f"right: answer {one} is correct.",
        )
        assert all(text in prompt for text in told)
        assert ("came with a question" in prompt) == given
    assert 70 < sum(firsts) < 130  # either place as often


def test_kinds_are_drawn_by_their_shares() -> None:
    count = 20_000
    localized, whole = draw_kinds({}, count, count, np.random.default_rng(0))
    total = sum(share for share, _ in KINDS.values())
    for kind, (share, _) in KINDS.items():
        expected = share / total
        spread = 5 * (expected * (1 - expected) / count) ** 0.5
        assert abs(localized.count(kind) / count - expected) < spread
        assert abs(whole.count(kind) / count - expected) <= 1.001 / count


def test_few_questions_about_the_whole_are_of_different_kinds() -> None:
    for seed in range(20):
        _, whole = draw_kinds({}, 0, 4, np.random.default_rng(seed))
        assert len(set(whole)) == 4
    _, whole = draw_kinds({"action": 2.0}, 0, 3, np.random.default_rng(0))
    assert whole == ["action"] * 3
