"""A file of questions and answers: what becomes of it, and what is said of a wrong line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.answers import keep_answers, read_answers
from data_pipelines.artefacts import building, check_unfinished, read_manifest
from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.pairs import read_pairs
from data_pipelines.sampling import FramePolicy
from data_pipelines.video import video_id

GOOD = {"video": "cat.mp4", "question": "What does the cat do?", "answer": "It sleeps."}
MADE_FROM = {"frames": "f1", "answers": "a1"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "more").mkdir()
    make_video(folder / "cat.mp4", count=5, fps=10, first=0)
    make_video(folder / "more" / "dog.mp4", count=5, fps=10, first=1000)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> FrameStore:
    out = tmp_path_factory.mktemp("store") / "frames"
    build_store(
        sorted(videos.rglob("*.mp4")),
        out,
        frame_policy=FramePolicy(fps=100.0),
        image_policy=ImagePolicy(size=32),
    )
    return FrameStore.open(out)


def write(path: Path, *lines: Any) -> Path:
    """Lines as they are if they are texts, else as JSON."""
    told = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in lines]
    path.write_text("".join(f"{one}\n" for one in told), encoding="utf-8")
    return path


def test_every_line_becomes_a_pair_without_a_rejected_answer(
    videos: Path, store: FrameStore, tmp_path: Path
) -> None:
    other = {"video": "more/dog.mp4", "question": "Wer\u2028bellt?", "answer": "Der Hund, 绿色."}
    again = GOOD | {"answer": "It dreams."}
    path = write(tmp_path / "told.jsonl", GOOD, other, again)
    keep_answers(read_answers(path, store), tmp_path / "pairs", MADE_FROM)
    pairs = read_pairs(tmp_path / "pairs" / "pairs.jsonl")
    assert [
        {"video": pair.source, "question": pair.question, "answer": pair.chosen} for pair in pairs
    ] == [GOOD, other, again]
    paths = [videos / "cat.mp4", videos / "more" / "dog.mp4", videos / "cat.mp4"]
    assert [pair.video_id for pair in pairs] == [video_id(one) for one in paths]
    for pair in pairs:
        assert pair.rejected is None and pair.segment is None
        assert pair.chosen_frames == pair.rejected_frames == []
        assert (pair.kind, pair.judge, pair.generator) == ("given", "none", "told.jsonl")
    assert len({pair.id for pair in pairs}) == 3


def test_it_is_an_artefact_like_that_of_curation(store: FrameStore, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    keep_answers(read_answers(write(tmp_path / "a", GOOD), store), out, MADE_FROM)
    manifest = read_manifest(out, "pairs")
    assert manifest["made_from"] == MADE_FROM
    assert {key: manifest[key] for key in ("pairs", "mix", "candidates", "dropped")} == {
        "pairs": 1,
        "mix": {"comprehensive": 1},
        "candidates": 1,
        "dropped": {},
    }
    assert (out / "dropped.jsonl").read_text() == ""
    assert not list(tmp_path.glob("*.partial"))


def test_ids_do_not_depend_on_the_place_of_the_file(store: FrameStore, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    one, other = write(tmp_path / "a", GOOD), write(tmp_path / "more" / "b", GOOD)
    assert [p.id for p in read_answers(one, store)] == [p.id for p in read_answers(other, store)]


def test_what_editors_of_other_systems_write_is_read(store: FrameStore, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert [pair.question for pair in read_answers(path, store)] == [GOOD["question"]]
    path.write_text(json.dumps(GOOD))  # no end of line at all
    assert len(read_answers(path, store)) == 1


def without(key: str) -> dict[str, str]:
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{'video'", "not JSON"),
        ("", "not JSON"),
        ([GOOD], "not a JSON object; a line is"),
        (without("video"), "has no key 'video'; a line is"),
        (without("answer"), "has no key 'answer'; a line is"),
        (without("answer") | {"anwser": "It."}, "has no key 'answer'; rename 'anwser' to it"),
        (GOOD | {"licence": "CC0"}, "has an unknown key 'licence'; leave it out"),
        (GOOD | {"question": 3}, "key 'question' is 3; must be a text"),
        (GOOD | {"answer": None}, "key 'answer' is None; must be a text"),
        (GOOD | {"answer": " \n"}, r"key 'answer' is ' \\n'; must be a text, not empty"),
        (json.dumps(GOOD | {"answer": "\ud83d"}), "key 'answer' holds half of a character"),
        (GOOD | {"video": "more/dgo.mp4"}, "key 'video' is 'more/dgo.mp4', .* 'more/dog.mp4'[?]"),
        (GOOD | {"video": "dog.mp4"}, "did you mean 'more/dog.mp4'[?]"),
        (GOOD | {"video": "0" * 16}, "not among the 2 videos"),
        (GOOD, "says the same as line 1; delete one"),
    ],
)
def test_a_wrong_line_is_named_with_its_mend(
    line: Any, said: str, store: FrameStore, tmp_path: Path
) -> None:
    path = write(tmp_path / "told.jsonl", GOOD, line, without("question"))
    with pytest.raises(InputError, match=f"told.jsonl:2: .*{said}"):
        read_answers(path, store)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"\xff\xfe", "cannot be read"), (b"\n", "empty")],
)
def test_a_file_that_is_none(
    content: bytes | None, said: str, store: FrameStore, tmp_path: Path
) -> None:
    path = tmp_path / "told.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"told.jsonl: .*{said}.* a line an answer"):
        read_answers(path, store)


def test_a_curation_that_was_cut_off_is_not_swept_away(store: FrameStore, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    with pytest.raises(KeyboardInterrupt), building(out, resume=True) as partial:
        check_unfinished(partial, {"frames": "f1", "model": "m1"})
        (partial / "ledger.jsonl").write_text("hours of work\n")
        raise KeyboardInterrupt
    pairs = read_answers(write(tmp_path / "a", GOOD), store)
    with pytest.raises(InputError, match="answers: found nothing, expected .*delete"):
        keep_answers(pairs, out, MADE_FROM)
    assert (tmp_path / "pairs.partial" / "ledger.jsonl").exists() and not out.exists()
