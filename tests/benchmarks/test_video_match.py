"""Items find their videos under other folders and suffixes, and what is missing is named."""

import pytest

from benchmarks.tasks.item import Item
from benchmarks.tasks.video_match import match_videos
from data_pipelines.errors import InputError


def about(*videos: str) -> list[Item]:
    return [Item(id=str(n), video=v, question="?", answer="A") for n, v in enumerate(videos)]


def test_names_are_found_by_their_end_and_under_any_suffix() -> None:
    items = about("data/a.mp4", "b.mp4", "c.mp4", "a.mp4", "v1.5_x.mp4")
    there = ["data/a.MP4", "videos/b.mkv", "c.mp4", "c.webm", "v1.5_x.mp4"]
    assert match_videos(items, there, "store") == {
        "data/a.mp4": "data/a.MP4",
        "b.mp4": "videos/b.mkv",
        "c.mp4": "c.mp4",  # its own name wins over another suffix
        "a.mp4": "data/a.MP4",
        "v1.5_x.mp4": "v1.5_x.mp4",
    }


def test_a_longer_end_wins() -> None:
    there = ["1_plotQA/7.mp4", "2_needle/7.mp4"]
    assert match_videos(about("2_needle/7.mp4"), there, "store") == {
        "2_needle/7.mp4": "2_needle/7.mp4"
    }


def test_what_is_missing_is_named() -> None:
    items = about("a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4")
    with pytest.raises(InputError, match=r"^videos/: 4 of 5 videos .* a.mp4, b.mp4, c.mp4, \.\.\."):
        match_videos(items, ["e.mp4"], "videos/")
    assert match_videos(items, ["e.mp4"], "videos/", leave_out=True) == {"e.mp4": "e.mp4"}


def test_two_that_fit_are_named() -> None:
    with pytest.raises(InputError, match="7.mp4 may be x/7.mp4 or y/7.mp4"):
        match_videos(about("7.mp4"), ["x/7.mp4", "y/7.mp4"], "videos/")
