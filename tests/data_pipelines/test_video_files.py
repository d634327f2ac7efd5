"""Where videos lie: folders, lists and buckets."""

from pathlib import Path, PurePosixPath

import pytest
from etils import epath

from data_pipelines.errors import InputError
from data_pipelines.video_files import find_videos, local_file, place_of


def test_find_videos(tmp_path: Path) -> None:
    for name in ("b.MP4", "a/c.mkv", "notes.txt", "._b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_videos(tmp_path) == [tmp_path / "a/c.mkv", tmp_path / "b.MP4"]
    assert find_videos(tmp_path / "b.MP4") == [tmp_path / "b.MP4"]
    with pytest.raises(InputError, match="no such folder"):
        find_videos(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no video in this folder"):
        find_videos(tmp_path / "empty")


def test_a_list_names_videos(tmp_path: Path) -> None:
    names = tmp_path / "some.txt"
    names.write_text("# mine\n\nb.mp4\n/x/a.mp4 \ngs://bucket/c.mp4\nb.mp4\n")
    found = find_videos(names)
    expected = {"/x/a.mp4", f"{tmp_path}/b.mp4", "gs://bucket/c.mp4"}
    assert [str(path) for path in found] == sorted(expected)
    names.write_text("# none\n")
    with pytest.raises(InputError, match="names no video"):
        find_videos(names)


def test_places_of_files_and_of_those_in_buckets() -> None:
    assert place_of(Path("/a/b.mp4")) == PurePosixPath("/a/b.mp4")
    in_bucket = place_of(epath.Path("gs://bucket/a/b.mp4"))
    assert in_bucket.relative_to(place_of(epath.Path("gs://bucket/a"))) == PurePosixPath("b.mp4")


def test_a_file_on_a_disk_is_not_copied(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"a")
    with local_file(file, tmp_path) as found:
        assert found == file
    assert file.exists()
