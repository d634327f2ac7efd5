"""Synthetic videos: what is drawn is seen, and a seed gives the same bytes every time."""

import json
from itertools import permutations
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipelines import synthetic
from data_pipelines.errors import InputError
from data_pipelines.synthetic import (
    FPS,
    RADIUS,
    RGB,
    SIDE,
    STRIP,
    Shown,
    draw,
    draw_scene,
    draw_timeline,
    read_truth,
    write_videos,
)
from data_pipelines.synthetic_events import (
    COLOURS,
    HELDOUT_THINGS,
    MOST_EVENTS,
    Event,
    draw_events,
)

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


def test_no_gap_between_events() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        events = draw_events(rng, MOST_EVENTS)
        timeline = draw_timeline(rng, events)
        assert timeline[0].start == 0
        assert all(a.end == b.start for a, b in zip(timeline, timeline[1:], strict=False))
        assert [shown.event for shown in timeline] == events
        assert all(4 <= shown.end - shown.start <= 8 for shown in timeline)


@pytest.mark.parametrize("number", range(len(COLOURS)))
def test_an_event_is_seen_between_its_ceiling_and_its_floor(number: int) -> None:
    colour, ceiling, floor = (COLOURS[(number + step) % len(COLOURS)] for step in (0, 3, 5))
    timeline = [Shown(event=Event(colour=colour, ceiling=ceiling, floor=floor), start=0, end=8)]
    scene = draw_scene(np.random.default_rng(number))

    def places(frame: np.ndarray, name: str) -> np.ndarray:
        return np.argwhere((frame == RGB[name]).all(axis=2))

    centres = []
    edge = STRIP - 3  # a thing may reach so far over the floor
    for time in (0.5, 7.5):
        frame = draw(scene, timeline, time)
        assert (frame[:edge] == RGB[ceiling]).all() and (frame[-edge:] == RGB[floor]).all()
        assert not len(places(frame[STRIP:], ceiling)) and not len(places(frame[:-STRIP], floor))
        thing = places(frame, colour)
        assert (RADIUS - 3) ** 2 < len(thing) / np.pi < (RADIUS + 3) ** 2  # whole
        centres.append(thing.mean(axis=0))
    down, right = centres[1] - centres[0]
    assert abs(down) < 2 and abs(right) > 0.8 * (SIDE - 2 * RADIUS)
    after = draw(scene, timeline, 8.0)
    assert all(len(places(after, name)) == 0 for name in (colour, ceiling, floor))


def test_colours_are_told_apart() -> None:
    """Also when a codec blurs them."""
    assert set(RGB) == set(COLOURS)
    for one, other in permutations(COLOURS, 2):
        assert np.linalg.norm(np.subtract(RGB[one], RGB[other])) > 70, (one, other)


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


def test_training_videos_never_show_a_thing_that_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "write_video", lambda path, *_: path.touch())
    found = {}
    for heldout in (False, True):
        truth = tmp_path / f"{heldout}.json"
        folder = tmp_path / f"videos_{heldout}"
        write_videos(folder, truth, count=8, events=(6, 8), seed=4, heldout_things=heldout)
        events = [shown.event for timeline in read_truth(truth).values() for shown in timeline]
        found[heldout] = {(event.colour, event.floor) for event in events} & HELDOUT_THINGS
    assert not found[False] and found[True]
