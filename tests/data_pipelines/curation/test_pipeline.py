"""Curation end to end: what is kept, what is dropped, and why."""

import ast
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.artefacts import read_manifest
from data_pipelines.curation.config import CurateConfig
from data_pipelines.curation.judge import RuleJudge
from data_pipelines.curation.responses import NegativeConfig
from data_pipelines.curation.segments import uniform_segments
from data_pipelines.errors import InputError
from data_pipelines.pairs import read_pairs
from data_pipelines.sampling import inside, outside
from data_pipelines.synthetic_events import COLOURS, DESCRIBE, Event, caption
from tests.data_pipelines.curation.knowing_model import (
    CONFIG,
    MADE_FROM,
    SAMPLING,
    UNKNOWN,
    World,
    answer_to,
    knowing,
    read_dropped,
    run,
    shown_in,
)
from tests.data_pipelines.grammar_by_hand import understand

ROOT = Path(__file__).parents[3]


def test_kept_pairs_have_the_right_chosen_answer(world: World, undisturbed: Path) -> None:
    pairs = read_pairs(undisturbed / "pairs.jsonl")
    assert {pair.video_id for pair in pairs} == set(world.store.videos)
    assert {pair.granularity for pair in pairs} == {"localized", "comprehensive"}
    for pair in pairs:
        _, right = answer_to(pair.question, world.timelines[pair.video_id])
        assert pair.chosen == right and pair.rejected == UNKNOWN
        assert pair.judge_said == {
            "chosen_better": True,
            "unambiguous": True,
            "chosen_right": True,
            "why": f"the captions say: {right}",
            "readable": True,
        }
        assert (pair.generator, pair.judge) == ("knowing@1", RuleJudge.name)
        assert pair.sampling == SAMPLING
    assert len({pair.id for pair in pairs}) == len(pairs)


def test_pairs_tell_the_frames_their_answers_were_made_from(
    world: World, undisturbed: Path
) -> None:
    for pair in read_pairs(undisturbed / "pairs.jsonl"):
        info = world.store.info(pair.video_id)
        timeline = world.timelines[pair.video_id]
        needed, _ = answer_to(pair.question, timeline)
        sides = [
            shown_in(world.store, pair.video_id, positions, timeline)
            for positions in (pair.chosen_frames, pair.rejected_frames)
        ]
        assert all(shown in sides[0] for shown in needed)
        assert not all(shown in sides[1] for shown in needed)
        if pair.granularity == "comprehensive":
            assert pair.segment is None and pair.negative == "incomplete"
            assert (len(pair.chosen_frames), len(pair.rejected_frames)) == (32, 4)
            assert set(pair.rejected_frames) < set(pair.chosen_frames)
            continue
        assert pair.segment is not None and pair.negative == "irrelevant"
        start, end = pair.segment
        assert (start, end) in uniform_segments(info.duration, CONFIG.segment_seconds)
        assert set(pair.chosen_frames) <= set(inside(info.times_F, start, end).tolist())
        length = end - start
        away = outside(info.times_F, start - length, end + length).tolist()
        assert set(pair.rejected_frames) <= set(away)
        assert len(pair.chosen_frames) == len(pair.rejected_frames) == CONFIG.segment_frames


def test_the_model_is_asked_for_what_the_pairs_say(world: World, tmp_path: Path) -> None:
    model = run(world, tmp_path / "pairs")
    assert [video for video, _ in model.calls] == [v for v in world.store.videos for _ in "ab"]
    asked = {
        (video, request.question, tuple(map(int, request.positions)))
        for video, requests in model.calls
        for request in requests
    }
    for pair in read_pairs(tmp_path / "pairs" / "pairs.jsonl"):
        for positions in (pair.chosen_frames, pair.rejected_frames):
            assert (pair.video_id, pair.question, tuple(positions)) in asked
    for video, requests in model.calls[::2]:
        info = world.store.info(video)
        segments = uniform_segments(info.duration, CONFIG.segment_seconds)
        assert [request.question for request in requests] == [DESCRIBE] * len(segments)
        for request, (start, end) in zip(requests, segments, strict=True):
            assert len(request.positions) == CONFIG.segment_frames
            assert set(request.positions) <= set(inside(info.times_F, start, end))


def test_every_candidate_is_kept_or_dropped_with_a_reason(world: World, undisturbed: Path) -> None:
    kept, dropped = read_pairs(undisturbed / "pairs.jsonl"), read_dropped(undisturbed)
    manifest = read_manifest(undisturbed, "pairs")
    assert manifest["made_from"] == MADE_FROM
    assert manifest["pairs"] == len(kept)
    assert manifest["candidates"] == len(kept) + len(dropped)
    assert manifest["mix"] == Counter(pair.granularity for pair in kept)
    assert manifest["dropped"] == Counter(entry["filter"] for entry in dropped)
    assert all(entry["reason"] for entry in dropped)
    # One localized candidate a segment: all captions were readable.
    localized = [pair.id for pair in kept if pair.granularity == "localized"]
    localized += [entry["id"] for entry in dropped if entry["granularity"] == "localized"]
    segments = [
        uniform_segments(world.store.info(video).duration, CONFIG.segment_seconds)
        for video in world.store.videos
    ]
    assert len(set(localized)) == len(localized) == sum(map(len, segments))
    assert {entry["filter"] for entry in dropped} <= {"ambiguous", "identical", "duplicate"}
    asked = Counter((pair.video_id, pair.question) for pair in kept)
    assert set(asked.values()) == {1}
    again = [entry for entry in dropped if entry["filter"] == "duplicate"]
    assert again and all(asked[entry["video_id"], entry["question"]] for entry in again)


def tampered(question: str, answer: str) -> str:
    """Empty, the same on both sides, wrong, or left as it is, by kind of question."""
    kind, _, _ = understand(question)
    if kind == "ceiling":
        return ""
    if kind == "floor":
        return "There is no floor."
    if kind in ("after", "before"):
        return UNKNOWN if answer != UNKNOWN else "The red thing, pink floor."
    return answer


def test_each_filter_drops_what_it_should(world: World, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    run(world, out, knowing(world, tamper=tampered))
    kept = {pair.kind for pair in read_pairs(out / "pairs.jsonl")}
    assert kept == {"both", "order", "count", "never"}
    reasons: dict[str, set[str]] = {}
    for entry in read_dropped(out):
        reasons.setdefault(entry["kind"], set()).add(entry["filter"])
    for kind, name in (
        ("ceiling", "empty"),
        ("floor", "identical"),
        ("before", "chosen_wrong"),
        ("after", "chosen_wrong"),
    ):
        assert reasons[kind] == {name}, kind


def told_otherwise(event: Event) -> Event:
    taken = (event.colour, event.ceiling, event.floor)
    ceiling, floor = [colour for colour in COLOURS if colour not in taken][:2]
    return replace(event, ceiling=ceiling, floor=floor)


def test_without_the_post_filter_only_empty_and_identical_go(world: World, tmp_path: Path) -> None:
    captions = {}
    # Many are asked twice.
    short = replace(CONFIG, segment_seconds=2.5, comprehensive_per_video=12)
    for video in world.store.videos[1:]:  # the last segment contradicts what the first ones tell
        first = [shown.event for shown in world.timelines[video][:3]]
        end = len(uniform_segments(world.store.info(video).duration, short.segment_seconds))
        captions[video, end - 1] = caption([told_otherwise(event) for event in first])
    told = {}
    for name in ("filtered", "all"):
        out = tmp_path / name
        model = knowing(world, tamper=tampered, captions=captions)
        run(world, out, model, config=replace(short, post_filter=name == "filtered"))
        told[name] = read_pairs(out / "pairs.jsonl"), read_dropped(out)
    (kept, dropped), (all_kept, all_dropped) = told["filtered"], told["all"]
    # Ambiguous questions too are asked, and kept with what the judge said of them.
    judged = {"ambiguous", "chosen_wrong", "rejected_not_worse"}
    assert {entry["filter"] for entry in dropped} & judged == {"ambiguous", "chosen_wrong"}
    found = {entry["filter"] for entry in all_dropped}
    assert {"empty", "identical"} <= found <= {"empty", "identical", "duplicate"}
    let_in = {pair.id for pair in all_kept} - {pair.id for pair in kept}
    of_judge = {entry["id"] for entry in dropped if entry["filter"] in judged}
    assert let_in and let_in <= of_judge
    # Of the same question the first is kept, and that may be one that the judge would drop.
    assert {(p.video_id, p.question) for p in kept} <= {(p.video_id, p.question) for p in all_kept}
    said = {pair.id: pair.judge_said for pair in all_kept}
    for one in let_in:
        assert not (said[one]["unambiguous"] and said[one]["chosen_right"])
    assert any(not said[one]["unambiguous"] for one in let_in)
    counts = [len(pairs) + len(gone) for pairs, gone in told.values()]
    assert counts[0] == counts[1]  # no candidate is lost


def test_unreadable_captions_are_not_asked_about(world: World, tmp_path: Path) -> None:
    video = world.store.videos[1]
    model = knowing(world, captions={(video, 2): "Something moves."})
    run(world, tmp_path / "pairs", model)
    out = tmp_path / "pairs"
    told = [pair.segment for pair in read_pairs(out / "pairs.jsonl") if pair.video_id == video]
    told += [entry["segment"] for entry in read_dropped(out) if entry["video_id"] == video]
    segments = uniform_segments(world.store.info(video).duration, CONFIG.segment_seconds)
    expected = [list(segment) for number, segment in enumerate(segments) if number != 2]
    assert sorted(told, key=str) == sorted(expected, key=str)  # and nothing comprehensive


def test_a_video_of_one_segment_is_accounted_for(world: World, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    run(world, out, config=replace(CONFIG, segment_seconds=1000.0, segment_frames=64))
    dropped = [entry for entry in read_dropped(out) if entry["granularity"] == "localized"]
    assert [entry["filter"] for entry in dropped] == ["no_other_frames"] * 3
    assert read_manifest(out, "pairs")["dropped"]["no_other_frames"] == 3
    kept = read_pairs(out / "pairs.jsonl")
    assert kept and {pair.granularity for pair in kept} == {"comprehensive"}


def test_seeds_ask_other_questions(world: World, undisturbed: Path, tmp_path: Path) -> None:
    run(world, tmp_path / "pairs", config=replace(CONFIG, seed=1))
    folders = (undisturbed, tmp_path / "pairs")
    one, other = ({pair.id for pair in read_pairs(out / "pairs.jsonl")} for out in folders)
    assert one != other


def test_pairs_of_other_runs_have_other_ids(
    world: World, undisturbed: Path, tmp_path: Path
) -> None:
    """Or they could not be mixed: the reference is joined by id."""
    seen = {pair.id for pair in read_pairs(undisturbed / "pairs.jsonl")}
    changed: list[tuple[CurateConfig, str]] = [
        (replace(CONFIG, sparse_frames=5), "knowing@1"),
        (replace(CONFIG, negatives=NegativeConfig(comprehensive={"drop": 1.0})), "knowing@1"),
        (CONFIG, "knowing@2"),
    ]
    for number, (config, name) in enumerate(changed):
        run(world, tmp_path / str(number), knowing(world, name=name), config=config)
        found = {pair.id for pair in read_pairs(tmp_path / str(number) / "pairs.jsonl")}
        assert found and not found & seen
        seen |= found
    # Who judges, and how many are wanted, changes no pair.
    run(world, tmp_path / "few", config=replace(CONFIG, pairs=6))
    few = {pair.id for pair in read_pairs(tmp_path / "few" / "pairs.jsonl")}
    assert few <= {pair.id for pair in read_pairs(undisturbed / "pairs.jsonl")}


def test_no_pair_left_is_an_error_with_counts(world: World, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    model = knowing(world, tamper=lambda question, answer: UNKNOWN)
    with pytest.raises(InputError, match=r"identical: \d+") as error:
        run(world, out, model)
    assert not out.exists()
    counts = Counter(entry["filter"] for entry in read_dropped(tmp_path / "curation"))
    assert f"identical: {counts['identical']}" in str(error.value)
    assert f"of {sum(counts.values())} candidates" in str(error.value)


def test_no_question_at_all_is_an_error(world: World, tmp_path: Path) -> None:
    spoilt = {(video, number): "?" for video in world.store.videos for number in range(20)}
    with pytest.raises(InputError, match="of 0 candidates .no question."):
        run(world, tmp_path / "pairs", knowing(world, captions=spoilt))
    assert not (tmp_path / "pairs").exists()


def mentions_of_the_truth(source: str) -> list[str]:
    """Where code imports or names what only scoring may read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found += [a.name for a in node.names if a.name == "read_truth"]
        if isinstance(node, ast.Attribute) and node.attr in ("truth", "read_truth"):
            found.append(ast.unparse(node))
        if isinstance(node, ast.Name) and node.id == "read_truth":
            found.append(node.id)
    if "eval.truth" in source or "read_truth" in source:
        found.append("in the text")
    return found


def test_only_scoring_reads_the_truth() -> None:
    paths = sorted((ROOT / "data_pipelines" / "curation").glob("*.py"))
    verbs = ("frames", "curate", "reference", "train", "export", "rows", "report", "arms")
    paths += [ROOT / "tpo_jax" / "cli" / f"{verb}.py" for verb in verbs]
    paths += [ROOT / "tpo_jax" / "api.py", ROOT / "data_pipelines" / "loader.py"]
    assert len(paths) > 16
    for path in paths:
        assert mentions_of_the_truth(path.read_text()) == [], path
    for path in (ROOT / "data_pipelines" / "curation").glob("*.py"):
        assert not re.search(r"data_pipelines(\.| import )synthetic\b", path.read_text()), path
    assert mentions_of_the_truth((ROOT / "tpo_jax" / "cli" / "eval.py").read_text())
