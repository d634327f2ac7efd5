"""Synthetic videos: the grammar can be read back, and a seed gives the same bytes every time."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import InputError
from data_pipelines.synthetic import (
    FPS,
    SIDE,
    Shown,
    draw,
    draw_events,
    draw_scene,
    draw_timeline,
    read_truth,
    write_videos,
)
from data_pipelines.synthetic_events import (
    COLOURS,
    COUNTS,
    MOTIONS,
    SHAPES,
    Event,
    caption,
    comprehensive_question,
    localized_question,
    read_caption,
)

EVENTS = st.builds(
    Event,
    shape=st.sampled_from(SHAPES),
    colour=st.sampled_from(COLOURS),
    motion=st.sampled_from(MOTIONS),
    count=st.sampled_from(COUNTS),
)
RED = Event(shape="ring", colour="red", motion="left", count="one")
CYAN = Event(shape="cross", colour="cyan", motion="up", count="two")
WHITE = Event(shape="ring", colour="white", motion="down", count="three")


# ------------------------------------------------------------------------------- the grammar


@given(st.lists(EVENTS, min_size=1, max_size=8))
def test_a_caption_is_read_back(events: list[Event]) -> None:
    assert read_caption(caption(events)) == events
    assert read_caption(f"  {caption(events)}\n") == events


@given(st.lists(EVENTS, min_size=1, max_size=3), st.data())
def test_a_caption_with_a_word_changed_is_another_or_none(
    events: list[Event], data: st.DataObject
) -> None:
    words = caption(events).split()
    at = data.draw(st.integers(0, len(words) - 1))
    words[at] = data.draw(st.sampled_from([*SHAPES, *COLOURS, *MOTIONS, "Two", "so", "", "."]))
    changed = " ".join(words)
    read = read_caption(changed)
    assert read is None or caption(read) == changed.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A red ring moves left.",
        "One red ring moves left",
        "One red ring move left.",
        "One red rings moves left.",
        "Two red ring move left.",
        "One pink ring moves left.",
        "One red star moves left.",
        "One red ring moves left. And then nothing.",
        "one red ring moves left.",
    ],
)
def test_another_form_is_not_read(text: str) -> None:
    assert read_caption(text) is None


def test_captions_as_written_by_hand() -> None:
    told = "One red ring moves left. Two cyan crosses move up."
    assert caption([RED, CYAN]) == told


def test_questions_as_written_by_hand() -> None:
    told = {
        kind: (question.text, question.answer)
        for kind in ("shape", "motion", "count")
        for question in [localized_question(CYAN, kind)]
    }
    assert told == {
        "shape": ("What are the cyan shapes?", "The cyan shapes are crosses."),
        "motion": ("Which way do the cyan shapes move?", "The cyan shapes move up."),
        "count": ("How many cyan shapes are there?", "There are two cyan shapes."),
    }
    assert localized_question(RED, "count").answer == "There is one red shape."
    order = comprehensive_question([RED, CYAN, WHITE], "order", 2, 1)
    assert order.text == "Which come first, the white shapes or the cyan shapes?"
    assert order.answer == "The cyan shapes come first."


@given(EVENTS)
def test_a_question_does_not_tell_its_answer(event: Event) -> None:
    for kind, told in (("shape", event.plural), ("motion", event.motion), ("count", event.count)):
        question = localized_question(event, kind)
        assert told not in question.text.split() and told in question.answer.rstrip(".").split()


def test_what_has_no_answer_is_not_asked() -> None:
    with pytest.raises(IndexError):
        comprehensive_question([RED, CYAN], "after", 1)
    with pytest.raises(IndexError):
        comprehensive_question([RED, CYAN], "before", 0)
    with pytest.raises(ValueError, match="known"):
        comprehensive_question([RED, CYAN], "shape", 0)
    with pytest.raises(ValueError, match="known"):
        localized_question(RED, "after")


# ------------------------------------------------------------------------------- the pictures


def timeline_and_frame(seed: int, time: float) -> tuple[list[Shown], np.ndarray]:
    rng = np.random.default_rng(seed)
    timeline = draw_timeline(rng, draw_events(rng, 3))
    return timeline, draw(draw_scene(rng), timeline, time)


def test_drawing_is_given_by_the_seed() -> None:
    timeline, frame = timeline_and_frame(3, 6.5)
    again, same = timeline_and_frame(3, 6.5)
    assert frame.shape == (SIDE, SIDE, 3) and frame.dtype == np.uint8
    assert again == timeline
    np.testing.assert_array_equal(same, frame)
    assert (timeline_and_frame(4, 6.5)[1] != frame).any()
    assert (timeline_and_frame(3, 6.6)[1] != frame).any()


def test_no_colour_twice_and_no_gap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        events = draw_events(rng, len(COLOURS))
        assert {event.colour for event in events} == set(COLOURS)
        timeline = draw_timeline(rng, events)
        assert timeline[0].start == 0
        assert all(a.end == b.start for a, b in zip(timeline, timeline[1:], strict=False))
        assert all(5 <= shown.end - shown.start <= 10 for shown in timeline)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_an_event_is_seen_and_moves_its_way(shape: str, motion: str) -> None:
    event = Event(shape=shape, colour="yellow", motion=motion, count="two")
    timeline = [Shown(event=event, start=0, end=10)]
    scene = draw_scene(np.random.default_rng(0))
    centres = []
    for time in (1.0, 9.0):
        frame = draw(scene, timeline, time)
        yellow = np.argwhere((frame == (245, 225, 40)).all(axis=2))
        assert 200 < len(yellow) < 2000
        centres.append(yellow.mean(axis=0))
    down, right = centres[1] - centres[0]
    along, across = (down, right) if motion in ("up", "down") else (right, down)
    assert abs(across) < 5
    assert (along if motion in ("down", "right") else -along) > 40
    assert (draw(scene, timeline, 10.0) != (245, 225, 40)).any(axis=2).all()


# --------------------------------------------------------------------------------- the files


def write(folder: Path, seed: int = 1, count: int = 2) -> Path:
    truth = folder.parent / f"{folder.name}.truth.json"
    write_videos(folder, truth, count=count, events=(1, 2), seed=seed)
    return truth


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "videos"
    write(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_seed_gives_the_same_files(written: Path, tmp_path: Path) -> None:
    truth = write(tmp_path / "videos")
    assert contents(tmp_path / "videos") == contents(written)
    assert truth.read_bytes() == written.with_name("videos.truth.json").read_bytes()


def test_another_seed_gives_other_videos(written: Path, tmp_path: Path) -> None:
    truth = write(tmp_path / "videos", seed=2)
    assert not set(contents(tmp_path / "videos").values()) & set(contents(written).values())
    assert read_truth(truth) != read_truth(written.with_name("videos.truth.json"))


def test_the_truth_is_beside_the_videos_and_is_true(written: Path) -> None:
    assert sorted(contents(written)) == ["videos_0000.mp4", "videos_0001.mp4"]
    told = read_truth(written.with_name("videos.truth.json"))
    assert sorted(told) == sorted(contents(written))
    for name, timeline in told.items():
        with av.open(str(written / name)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == int(timeline[-1].end * FPS)
        rng = np.random.default_rng([1, int(name[-8:-4])])
        drawn = draw_timeline(rng, draw_events(rng, int(rng.integers(1, 3))))
        assert drawn == timeline
        frame = draw(draw_scene(rng), timeline, 2.0)
        # Coding blurs the colours; another moment of the video differs far more.
        error = np.abs(frames[2 * FPS].astype(int) - frame).mean()
        assert error < 8 < np.abs(frames[-1].astype(int) - frame).mean()


def test_nothing_is_written_again_and_other_settings_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    truth = write(folder, count=1)
    before = (folder / "videos_0000.mp4").stat().st_mtime_ns
    write(folder, count=1)
    assert (folder / "videos_0000.mp4").stat().st_mtime_ns == before
    for seed, count in ((2, 1), (1, 2)):
        with pytest.raises(InputError, match="other videos are there"):
            write(folder, seed=seed, count=count)
    assert list(json.loads(truth.read_text())) == ["videos_0000.mp4"]


@pytest.mark.parametrize("events", [(0, 2), (3, 2), (1, 9)])
def test_impossible_numbers_of_events_are_refused(tmp_path: Path, events: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="within 1 and 8"):
        write_videos(tmp_path / "v", tmp_path / "t.json", count=1, events=events, seed=0)
