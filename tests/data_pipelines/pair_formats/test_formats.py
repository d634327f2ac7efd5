"""Pairs in the formats of others: read, written and read back, told apart, refused by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.pair_formats.formats import FORMATS, READABLE, read_rows, write_rows
from data_pipelines.pair_formats.row import MARKS, Row, resolve
from data_pipelines.pairs import Pair, read_pairs, write_pairs
from data_pipelines.video import video_id
from data_pipelines.video_names import VideoNames, open_videos

QUESTION, CHOSEN, REJECTED = "What does the cat do?", "It sleeps.", "It runs."
PAIR = Pair(
    id="0f",
    video_id="",
    granularity="localized",
    kind="motion",
    question=QUESTION,
    chosen=CHOSEN,
    rejected=REJECTED,
    negative="irrelevant",
    chosen_frames=[3, 4],
    rejected_frames=[0, 9],
    segment=[1.5, 3.25],
    generator="demo@12",
    sampling={"temperature": 0.0},
    judge="rules",
    source="drawn",
    licence="CC0",
)
USER = {"role": "user", "content": f"<video>{QUESTION}"}
SAID = {"role": "assistant", "content": CHOSEN}
OTHER = {"role": "assistant", "content": REJECTED}
ENTRIES: dict[str, dict[str, Any]] = {
    "llava_next": {
        "id": 7,
        "video": "cat.mp4",
        "prompt": f"<image>\n{QUESTION}",
        "chosen": CHOSEN,
        "rejected": REJECTED,
    },
    "ms_swift": {"messages": [USER, SAID], "rejected_response": REJECTED, "videos": ["cat.mp4"]},
    "llama_factory": {
        "conversations": [{"from": "human", "value": f"<video>{QUESTION}"}],
        "chosen": {"from": "gpt", "value": CHOSEN},
        "rejected": {"from": "gpt", "value": REJECTED},
        "videos": ["cat.mp4"],
    },
    "trl": {
        "prompt": [
            {
                "role": "user",
                "content": [
                    {"type": "video", "path": "cat.mp4"},
                    {"type": "text", "text": QUESTION},
                ],
            }
        ],
        "chosen": [SAID],
        "rejected": [OTHER],
    },
}
# Text that JSON lines keep though some readers end a line there; without what a prompt loses.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(
    lambda text: f"a{text}\u2028b"
)
CLEAN = TEXT.filter(lambda text: not any(mark in text for mark in MARKS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with the names of videos; nobody decodes them here."""
    root = tmp_path_factory.mktemp("videos")
    (root / "more").mkdir()
    (root / "cat.mp4").write_bytes(b"cat")
    (root / "more" / "dog.mp4").write_bytes(b"dog")
    return root


@pytest.fixture(scope="module")
def videos(folder: Path) -> VideoNames:
    return open_videos(folder)


def write(path: Path, *entries: Any) -> Path:
    text = json.dumps(list(entries)) if path.suffix == ".json" else ""
    path.write_text(text or "".join(f"{json.dumps(entry)}\n" for entry in entries))
    return path


def told(row: Row) -> tuple[Any, ...]:
    return row.video, row.question, row.chosen, row.rejected


def refused(path: Path, name: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_rows(path, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize("name", ENTRIES)
def test_a_format_is_told_by_its_first_row(name: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"pairs.{suffix}", ENTRIES[name], ENTRIES[name] | {"score": 1})
    found, rows = read_rows(path)
    assert found == name
    assert [told(row) for row in rows] == [("cat.mp4", QUESTION, CHOSEN, REJECTED)] * 2
    assert rows[0].left_out == (() if name != "llava_next" else ("id, where rows share one",))
    assert "score" in rows[1].left_out
    assert rows[1].where == f"{path}: row 2" if suffix == "json" else f"{path}:2"


def test_only_an_id_of_its_own_is_a_rows_id(tmp_path: Path) -> None:
    entry = ENTRIES["llava_next"]
    rows = read_rows(write(tmp_path / "a.jsonl", entry, entry | {"id": "x"}, entry))[1]
    assert [row.id for row in rows] == [None, "x", None]
    assert read_rows(write(tmp_path / "b.jsonl", entry))[1][0].id == "7"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llava_next", {"chosen": None}, "'chosen' is None"),
        ("llava_next", {"video": ["a", "b"]}, "'video' names 2 videos"),
        ("llava_next", {"image": "a.png"}, "about a picture"),
        ("llava_next", {"prompt": "<image>\n"}, "asks nothing"),
        ("llava_next", {"rejected": "\ud800"}, "'rejected' holds half of a character"),
        ("llava_next", {"licence": 3}, "'licence' is 3"),
        ("llava_next", {"id": True}, "'id' is True"),
        ("ms_swift", {"videos": []}, "names 0 videos"),
        ("ms_swift", {"videos": [["a.png", "b.png"]]}, "lists frames"),
        ("ms_swift", {"videos": 3}, "'videos' is 3"),
        ("ms_swift", {"messages": [USER]}, "ends without an answer"),
        ("ms_swift", {"messages": [USER, SAID, USER, SAID]}, "turns are user, assistant, user"),
        ("ms_swift", {"messages": [{"role": "system", "content": "a"}]}, "turns are none"),
        ("ms_swift", {"messages": [USER, {"role": "tool", "content": "a"}]}, "role 'tool'"),
        ("ms_swift", {"messages": [USER, "a"]}, "turn 2 of 'messages': is no object"),
        ("ms_swift", {"messages": "a"}, "no list of turns"),
        ("ms_swift", {"messages": [USER | {"content": "<video><video>a"}, SAID]}, "2 places"),
        ("ms_swift", {"rejected_response": ""}, "'rejected_response' is ''"),
        ("ms_swift", {"rejected_videos": ["dog.mp4"]}, "differs from 'videos'"),
        ("ms_swift", {"images": ["a.png"]}, "about pictures"),
        ("llama_factory", {"chosen": {"from": "human", "value": "a"}}, "turns of user"),
        ("llama_factory", {"chosen": "a"}, "'chosen': is no object"),
        ("trl", {"prompt": [USER, SAID]}, "ends with an answer"),
        ("trl", {"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "type 'image'"),
        ("trl", {"prompt": [USER]}, "no 'video'"),
        ("trl", {"chosen": CHOSEN}, "'chosen' is no list"),
    ],
)
def test_a_wrong_row_is_named(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    entry = ENTRIES[name]
    path = write(tmp_path / "pairs.jsonl", entry, entry | changes)
    line = refused(path)
    assert line.startswith(f"{path}:2: ") and message in line
    assert refused(write(tmp_path / "p.json", entry, entry | changes)).startswith(
        f"{tmp_path / 'p.json'}: row 2: "
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(("llava_next", key) for key in ("video", "chosen", "rejected")),
        *(("ms_swift", key) for key in ("videos",)),
        *(("llama_factory", key) for key in ("chosen", "rejected", "videos")),
        *(("trl", key) for key in ("chosen", "rejected")),
    ],
)
def test_a_missing_field_is_named(name: str, key: str, tmp_path: Path) -> None:
    entry = {one: value for one, value in ENTRIES[name].items() if one != key}
    path = write(tmp_path / "pairs.jsonl", ENTRIES[name], entry)
    assert refused(path).startswith(f"{path}:2: the row has no {key!r}; it has ")


def test_rows_for_sft_have_no_rejected_answer(tmp_path: Path) -> None:
    conversation = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": CHOSEN}]
    trl = ENTRIES["trl"]
    plain = (
        {"messages": [USER, SAID], "videos": ["cat.mp4"]},
        {"conversations": conversation, "videos": ["cat.mp4"]},
        {"prompt": trl["prompt"], "completion": trl["chosen"]},
    )
    for number, entry in enumerate(plain):
        (row,) = read_rows(write(tmp_path / f"{number}.jsonl", entry))[1]
        assert told(row) == ("cat.mp4", QUESTION, CHOSEN, None)
    both = write(tmp_path / "both.jsonl", plain[1] | {"chosen": {}})
    assert "beside 'chosen'" in refused(both)


def test_the_other_ways_to_tell_the_same(tmp_path: Path) -> None:
    swift, trl = ENTRIES["ms_swift"], ENTRIES["trl"]
    system = {"role": "system", "content": "Be brief."}
    other = {"messages": [system, USER, SAID], "rejected_messages": [system, USER, OTHER]}
    parts = USER | {
        "content": [{"type": "video", "video": "cat.mp4"}, {"type": "text", "text": QUESTION}]
    }
    for number, entry in enumerate(
        (
            other | {"videos": "cat.mp4", "rejected_videos": "cat.mp4"},
            {"messages": [parts, SAID], "rejected_response": REJECTED},
            trl | {"prompt": [USER], "video": "cat.mp4"},
            trl | {"prompt": [USER], "videos": ["cat.mp4"]},
        )
    ):
        (row,) = read_rows(write(tmp_path / f"{number}.jsonl", entry))[1]
        assert told(row) == ("cat.mp4", QUESTION, CHOSEN, REJECTED)
        assert row.left_out == (("a system turn",) if number == 0 else ())
    changed = swift | {"rejected_messages": [USER | {"content": "Why?"}, OTHER]}
    del changed["rejected_response"]
    assert "must answer the question" in refused(write(tmp_path / "x.jsonl", changed))


def test_a_file_that_cannot_be_told_or_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "a"})
    assert f"--from={'|'.join(READABLE)}" in refused(path) and ":1: looks like none" in refused(
        path
    )
    assert "cannot be read" in refused(tmp_path / "none.jsonl")
    path.write_bytes(b"\xff\xfe")
    assert "give a UTF-8 file" in refused(path)
    for text, message in (("", "is empty"), ("[]", "holds no pair"), ("[3]", "row 1: not a JSON")):
        path.write_text(text)
        assert message in refused(path, "trl")
    path.write_text(json.dumps(ENTRIES["trl"]) + "\n\n")
    assert f"{path}:2: not JSON" in refused(path)
    path.write_text('[{"a": ')
    assert f"{path}: not JSON" in refused(path)


# --------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize("name", ["llava_next", "ms_swift"])
def test_our_pairs_come_back(
    name: str, suffix: str, tmp_path: Path, folder: Path, videos: VideoNames
) -> None:
    @settings(max_examples=30)
    @given(st.lists(st.tuples(CLEAN, CLEAN, CLEAN), min_size=1, max_size=3))
    def there_and_back(texts: list[tuple[str, str, str]]) -> None:
        dog = replace(PAIR, video_id=video_id(folder / "more" / "dog.mp4"))
        pairs = [
            replace(dog, id=f"n{number}", question=question, chosen=chosen, rejected=rejected)
            for number, (question, chosen, rejected) in enumerate(texts)
        ]
        ours, theirs, again = (tmp_path / one for one in ("a.jsonl", f"b.{suffix}", "c.jsonl"))
        for path in (ours, theirs, again):
            path.unlink(missing_ok=True)
        write_pairs(ours, pairs)
        write_rows(theirs, name, read_rows(ours)[1], videos, "some/where/")
        found, rows = read_rows(theirs)
        assert found == name and {row.video for row in rows} == {"some/where/more/dog.mp4"}
        assert not any(row.left_out for row in rows)
        write_rows(again, "ours", [resolve(row, videos) for row in rows])
        forgotten: dict[str, Any] = {
            "kind": "given",
            "negative": "none",
            "chosen_frames": [],
            "rejected_frames": [],
            "segment": None,
            "sampling": {},
            "judge": "none",
        }
        assert read_pairs(again) == [replace(pair, **forgotten) for pair in pairs]

    there_and_back()


def test_what_others_read_is_what_they_document(
    tmp_path: Path, folder: Path, videos: VideoNames
) -> None:
    ours = tmp_path / "ours.jsonl"
    write_pairs(ours, [replace(PAIR, video_id=video_id(folder / "cat.mp4"))])
    rows = read_rows(ours)[1]
    write_rows(tmp_path / "llava.json", "llava_next", rows, videos)
    write_rows(tmp_path / "swift.jsonl", "ms_swift", rows, videos)
    origin = {
        "granularity": "localized",
        "source": "drawn",
        "licence": "CC0",
        "generator": "demo@12",
    }
    assert json.loads((tmp_path / "llava.json").read_text()) == [
        ENTRIES["llava_next"] | {"id": "0f", "answer": ""} | origin
    ]
    assert json.loads((tmp_path / "swift.jsonl").read_text()) == (
        ENTRIES["ms_swift"] | {"id": "0f"} | origin
    )


def test_every_format_converts_to_the_others_without_the_videos(tmp_path: Path) -> None:
    for name, entry in ENTRIES.items():
        rows = read_rows(write(tmp_path / f"{name}.jsonl", entry))[1]
        for target in ("llava_next", "ms_swift"):
            out = tmp_path / f"{name}_{target}.jsonl"
            write_rows(out, target, rows)
            (row,) = read_rows(out, target)[1]
            assert told(row) == told(rows[0]) and row.id


def test_rows_for_sft_are_written_where_there_is_a_form_for_them(tmp_path: Path) -> None:
    entry = {"messages": [USER, SAID], "videos": ["cat.mp4"]}
    rows = read_rows(write(tmp_path / "a.jsonl", entry))[1]
    write_rows(tmp_path / "b.jsonl", "ms_swift", rows)
    assert "rejected_response" not in json.loads((tmp_path / "b.jsonl").read_text())
    with pytest.raises(InputError, match=r"a.jsonl:1: the pair has no rejected answer"):
        write_rows(tmp_path / "c.jsonl", "llava_next", rows)
    assert not (tmp_path / "c.jsonl").exists()


@pytest.mark.parametrize("mark", ["<image>", "<video>", "<audio>"])
@pytest.mark.parametrize("field", ["question", "chosen", "rejected"])
@pytest.mark.parametrize("name", ["llava_next", "ms_swift"])
def test_a_text_with_a_mark_is_not_written(
    name: str, field: str, mark: str, tmp_path: Path
) -> None:
    row = read_rows(write(tmp_path / "a.jsonl", ENTRIES[name]))[1][0]
    marked: Row = replace(row, **{field: f"a {mark} b"})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"a.jsonl:1: the {field} holds {mark}"):
        write_rows(tmp_path / "b.jsonl", name, [marked])


def test_writing_is_refused(tmp_path: Path, videos: VideoNames) -> None:
    path = write(tmp_path / "a.jsonl", ENTRIES["ms_swift"])
    rows = read_rows(path)[1]
    cases: tuple[tuple[Path, str, list[Row], str], ...] = (
        (path, "ms_swift", rows, "exists already"),
        (tmp_path / "no" / "b.jsonl", "ms_swift", rows, "no such folder"),
        (tmp_path / "b.jsonl", "ms_swift", [], "no pair is left"),
        (tmp_path / "b.jsonl", "trl", rows, "is only read"),
        (tmp_path / "b.jsonl", "ours", rows, "--videos=FOLDER"),
        (tmp_path / "b.json", "ours", rows, "name it .jsonl"),
        (tmp_path / "b.jsonl", "ms_swift", [resolve(rows[0], videos)], "--videos=FOLDER"),
    )
    for out, name, some, message in cases:
        with pytest.raises(InputError, match=message):
            write_rows(out, name, some)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.jsonl"]


# ----------------------------------------------------------------------------------------- videos


def test_a_video_is_found_by_the_end_of_its_path(folder: Path, videos: VideoNames) -> None:
    dog = video_id(folder / "more" / "dog.mp4")
    for name in ("more/dog.mp4", f"{folder}/more/dog.mp4", "/x/more/dog.mp4", r"C:\x\more\dog.mp4"):
        assert videos.find(name, "here") == dog
    assert videos.name_of(dog, "here") == "more/dog.mp4"


def test_a_video_that_is_not_there_is_named(
    tmp_path: Path, videos: VideoNames, folder: Path
) -> None:
    entry = ENTRIES["ms_swift"]
    path = write(tmp_path / "a.jsonl", entry, entry | {"videos": ["dog.mp4"]})
    rows = read_rows(path)[1]
    with pytest.raises(InputError, match=r"a.jsonl:2: .*'dog.mp4'.*did you mean 'more/dog.mp4'"):
        [resolve(row, videos) for row in rows]
    with pytest.raises(InputError, match="here: no file of .* has the video id 'ab'"):
        videos.name_of("ab", "here")
    for bad in (folder / "none", folder / "cat.mp4"):
        with pytest.raises(InputError, match="no such folder"):
            open_videos(bad)


def test_names_with_the_same_bytes_are_one_video(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"cat")
    (tmp_path / "b.mp4").write_bytes(b"cat")
    found = open_videos(tmp_path)
    same = found.find("b.mp4", "here")
    assert found.find("a.mp4", "here") == same and found.name_of(same, "here") == "b.mp4"


def test_every_format_that_writes_reads_what_it_wrote() -> None:
    for name, one in FORMATS.items():
        if one.write is not None:
            row = one.read(ENTRIES[name], "here")
            again = one.read(one.write(row), "here")
            assert again == row
