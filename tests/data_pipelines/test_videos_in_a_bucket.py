"""Videos in a bucket, against an emulated service: found, copied one by one, and stored."""

from collections.abc import Callable
from pathlib import Path

from etils import epath

from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.video_files import find_videos

SRT = "1\n00:00:00,500 --> 00:00:02,000\nhello\n"


def test_the_store_is_that_of_the_same_files_on_a_disk(
    tmp_path: Path, bucket: epath.Path, make_video: Callable[..., Path]
) -> None:
    local = tmp_path / "videos"
    for name in ("a.mp4", "deep/b.mp4"):
        make_video(local / name, count=20, first=len(name))
        (bucket / "videos" / name).write_bytes((local / name).read_bytes())
    for root in (local, bucket / "videos"):
        (root / "a.en.srt").write_text(SRT)
    found = find_videos("gs://bucket/videos")
    assert [str(path) for path in found] == [
        f"gs://bucket/videos/{n}" for n in ("a.mp4", "deep/b.mp4")
    ]
    policies = (FramePolicy(), ImagePolicy(size=32))
    for name, videos in (("there", found), ("here", find_videos(local))):
        build_store(
            videos, tmp_path / name, frame_policy=policies[0], image_policy=policies[1], workers=1
        )
    there, here = (sorted((tmp_path / name).iterdir()) for name in ("there", "here"))
    assert [path.name for path in there] == [path.name for path in here]
    assert [path.read_bytes() for path in there] == [path.read_bytes() for path in here]
    store = FrameStore.open(tmp_path / "there")
    assert sum(len(store.subtitles(video)) for video in store.videos) == 1
    assert build_store(
        found, tmp_path / "there", frame_policy=policies[0], image_policy=policies[1]
    ).reused
