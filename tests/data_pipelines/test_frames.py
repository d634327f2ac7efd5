"""The FrameStore: built once, killed at will, read by position."""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines import frames, shards
from data_pipelines.errors import InputError
from data_pipelines.frame_build import StoreSummary, build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.video import decode_frames, read_index, video_id

Make = Callable[..., Path]
Read = Callable[[np.ndarray], int]
SIZE = 32


class Killed(Exception):
    """Stands for whatever ends a build in the middle."""


def kill_after(files: int) -> frames.Progress:
    def progress(done: int, total: int, detail: str) -> None:
        if done == files:
            raise Killed

    return progress


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_video: Make) -> list[Path]:
    """Three videos: two records, one record with a variable rate, three records."""
    folder = tmp_path_factory.mktemp("videos")
    pts = np.cumsum([0] + [60 * (1 + i * 7 % 5) for i in range(19)]).tolist()
    return [
        make_video(folder / "a.mp4", count=50),
        make_video(folder / "deep" / "b.mp4", count=20, first=1000, pts=pts),
        make_video(folder / "c.mkv", count=96, first=2000),
    ]


def build(videos: list[Path], out: Path, **changes: Any) -> StoreSummary:
    settings: dict[str, Any] = {
        "frame_policy": FramePolicy(fps=100.0, max_frames=96),
        "image_policy": ImagePolicy(size=SIZE),
    }
    return build_store(videos, out, **(settings | changes))


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory, videos: list[Path]) -> Path:
    out = tmp_path_factory.mktemp("store") / "frames"
    build(videos, out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_stored_frames_are_the_prepared_source_frames(
    store_path: Path, videos: list[Path], read_stamp: Read
) -> None:
    store = FrameStore.open(store_path)
    assert store.videos == sorted(video_id(path) for path in videos)
    assert store.policies["image_policy"]["size"] == SIZE
    for path, first in zip(videos, (0, 1000, 2000), strict=True):
        index, info = read_index(path), store.info(video_id(path))
        count = len(index.times_F)
        assert info.names == (path.relative_to(videos[0].parent).as_posix(),)
        assert (info.duration, info.fps) == (index.duration, index.fps)
        np.testing.assert_array_equal(info.numbers_F, np.arange(count))
        np.testing.assert_array_equal(info.times_F, index.times_F)
        stored = store.frames(video_id(path), range(count))
        assert stored.dtype == np.uint8 and stored.shape == (count, SIZE, SIZE, 3)
        prepare = ImagePolicy(size=SIZE).prepare
        expected = np.stack([prepare(rgb) for rgb in decode_frames(index, range(count))])
        np.testing.assert_array_equal(stored, expected)
        assert [read_stamp(rgb) for rgb in stored] == list(range(first, first + count))


def test_a_store_knows_what_the_authors_would_tell_of_its_frames(
    tmp_path: Path, videos: list[Path]
) -> None:
    # The second video's rate varies. Spread frames are told by the average rate, others by their
    # step, and at three frames a second 20 frames at about 17 a second have a step of 6.
    index = read_index(videos[1])
    for policy, divisor in (
        (FramePolicy(kind="force_sample", max_frames=7), index.fps),
        (FramePolicy(fps=3.0, max_frames=3), index.fps),
        (FramePolicy(fps=3.0, max_frames=4), 6),
    ):
        out = tmp_path / f"{policy.kind}{policy.max_frames}"
        build(videos[1:2], out, frame_policy=policy)
        info = FrameStore.open(out).info(video_id(videos[1]))
        np.testing.assert_array_equal(info.numbers_F, policy.choose(20, index.fps))
        np.testing.assert_array_equal(info.reference_times_F, info.numbers_F / divisor)
        np.testing.assert_array_equal(info.told_times("reference"), info.reference_times_F)
        np.testing.assert_array_equal(info.told_times("exact"), index.times_F[info.numbers_F])


def test_positions_in_any_order_read_only_their_records(
    store_path: Path, videos: list[Path], read_stamp: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FrameStore.open(store_path)
    read = []
    record = store._record

    def count_records(entry: dict[str, Any], row: int) -> Any:
        read.append(row)
        return record(entry, row)

    monkeypatch.setattr(store, "_record", count_records)
    positions = [95, 3, 3, 70, 0]
    got = store.frames(video_id(videos[2]), positions)
    assert [read_stamp(rgb) - 2000 for rgb in got] == positions
    assert read == [0, 2]
    got[:] = 0  # ours to write on
    assert store.frames(video_id(videos[2]), []).shape == (0, SIZE, SIZE, 3)


def test_unknown_video_and_position_are_refused(store_path: Path, videos: list[Path]) -> None:
    store = FrameStore.open(store_path)
    with pytest.raises(InputError, match="'nobody' is not among the 3"):
        store.info("nobody")
    for positions in ([50], [-1]):
        with pytest.raises(InputError, match="has 50 stored frames"):
            store.frames(video_id(videos[0]), positions)
    with pytest.raises(InputError, match="no finished 'frames' artefact"):
        FrameStore.open(store_path / "nowhere")


def test_fingerprint_follows_settings_and_videos(
    tmp_path: Path, store_path: Path, videos: list[Path]
) -> None:
    build(videos[:2], tmp_path / "fewer")
    build(videos, tmp_path / "crop", image_policy=ImagePolicy(size=SIZE, mode="shortest_edge_crop"))
    stores = (store_path, tmp_path / "fewer", tmp_path / "crop")
    assert len({FrameStore.open(path).fingerprint for path in stores}) == 3


def test_workers_and_order_do_not_change_a_byte(
    tmp_path: Path, store_path: Path, videos: list[Path]
) -> None:
    seen: list[tuple[int, int, str]] = []
    build(videos[::-1], tmp_path / "x", workers=2, progress=lambda *call: seen.append(call))
    assert contents(tmp_path / "x") == contents(store_path)
    assert [call[:2] for call in seen] == [(1, 3), (2, 3), (3, 3)]
    assert {call[2].split(" · ")[0] for call in seen} == {"a.mp4", "b.mp4", "c.mkv"}
    assert re.search(r" · \d+ frames/s, \d+\.\d MB/s$", seen[-1][2])


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_build_goes_on(
    tmp_path: Path,
    store_path: Path,
    videos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    out = tmp_path / "frames"
    with pytest.raises(Killed):
        build(videos, out, workers=workers, progress=kill_after(2))
    assert not out.exists()
    (tmp_path / "frames.partial" / "work" / "half.array_record.1.tmp").write_bytes(b"half")
    (tmp_path / "frames.partial" / "manifest.json.1.tmp").write_bytes(b"half")
    if workers == 1:  # another process would not see the patch
        written = []
        write_shard = shards.write_shard

        def count_writes(path: Path, *rest: Any) -> None:
            written.append(path)
            write_shard(path, *rest)

        monkeypatch.setattr(shards, "write_shard", count_writes)
    build(videos, out, workers=workers)
    assert contents(out) == contents(store_path)
    assert not (tmp_path / "frames.partial").exists()
    if workers == 1:
        assert len(written) == 1


def test_build_killed_at_the_very_end_goes_on_with_other_videos(
    tmp_path: Path, store_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards have got their final names, which depend on how many there are."""

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shards, "write_dataset", die)
        build(videos[:2], tmp_path / "frames")
    monkeypatch.setattr(shards, "write_shard", write_only_c := _only(videos[2]))
    build(videos, tmp_path / "frames")
    assert write_only_c.calls == 1
    assert contents(tmp_path / "frames") == contents(store_path)


class _only:
    """`write_shard` for one video; any other would be work done twice."""

    def __init__(self, video: Path) -> None:
        self.identity, self.calls, self.write = video_id(video), 0, shards.write_shard

    def __call__(self, path: Path, identity: str, *rest: Any) -> None:
        assert identity == self.identity
        self.calls += 1
        self.write(path, identity, *rest)


def test_unfinished_build_refuses_other_settings(tmp_path: Path, videos: list[Path]) -> None:
    with pytest.raises(Killed):
        build(videos, tmp_path / "x", progress=kill_after(1))
    with pytest.raises(InputError, match=r"image_policy.size: found 32, expected 48"):
        build(videos, tmp_path / "x", image_policy=ImagePolicy(size=48))


def test_bad_videos_are_set_aside(
    tmp_path: Path, store_path: Path, videos: list[Path], bad_videos: dict[str, Path]
) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff.mp4")
    odd.write_bytes(b"odd")
    bad = [*bad_videos.values(), odd]
    summary = build([*bad, *videos], tmp_path / "x", workers=2)
    assert (summary.videos, summary.quarantined, summary.frames) == (3, len(bad), 166)
    lines = (tmp_path / "x" / "quarantine.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    reasons = {Path(entry["path"]).name: entry["reason"] for entry in entries}
    assert [entry["path"] for entry in entries[:-1]] == sorted(map(str, bad_videos.values()))
    assert reasons.keys() == {*bad_videos, r"odd\xff.mp4"}
    assert "empty" in reasons["empty.mp4"] and "cut off" in reasons["tail_cut.mp4"]
    # Decoding began before the damage was met; nothing of it may stay.
    assert "damaged" in reasons["damaged.mp4"]
    assert FrameStore.open(tmp_path / "x").videos == FrameStore.open(store_path).videos
    names = {path.name for path in (tmp_path / "x").iterdir()}
    assert names == {path.name for path in store_path.iterdir()}
    assert build([*bad, *videos], tmp_path / "x").reused


def test_nothing_good_is_an_error(tmp_path: Path, bad_videos: dict[str, Path]) -> None:
    with pytest.raises(
        InputError, match=r"none of 10 files could be stored; the first, .*: damaged"
    ):
        build(list(bad_videos.values()), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="0 videos"):
        build([], tmp_path / "x")


def test_same_bytes_are_stored_once(tmp_path: Path, videos: list[Path]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("one.mp4", "two.mp4"):
        (folder / name).write_bytes(videos[0].read_bytes())
    summary = build([folder / "one.mp4", folder / "two.mp4"], tmp_path / "x", workers=2)
    assert (summary.videos, summary.frames) == (1, 50)
    store = FrameStore.open(tmp_path / "x")
    assert store.info(store.videos[0]).names == ("one.mp4", "two.mp4")


def test_finished_store_is_used_again_or_refused(
    tmp_path: Path, store_path: Path, videos: list[Path], make_video: Make
) -> None:
    before = {path: path.stat().st_mtime_ns for path in store_path.iterdir()}
    summary = build(videos, store_path)
    assert summary.reused and (summary.videos, summary.frames) == (3, 166)
    assert {path: path.stat().st_mtime_ns for path in store_path.iterdir()} == before
    with pytest.raises(InputError, match=r"frame_policy.fps: found 100.0, expected 1.0"):
        build(videos, store_path, frame_policy=FramePolicy(fps=1.0, max_frames=96))
    new = make_video(tmp_path / "new.mp4", count=5)
    with pytest.raises(InputError, match=r"1 given are not in it \(first: .*new.mp4\), 1 in it"):
        build([*videos[:2], new], store_path)


def test_check_names_the_shard_with_a_flipped_byte(tmp_path: Path, videos: list[Path]) -> None:
    build(videos, tmp_path / "x")
    store = FrameStore.open(tmp_path / "x")
    seen: list[tuple[int, int, str]] = []
    store.check(progress=lambda *call: seen.append(call))
    assert len(seen) == 3
    first, second = (tmp_path / "x" / shards.shard_name(row, 3) for row in (0, 1))
    data = bytearray(first.read_bytes())
    place = 400  # in the first record
    data[place] ^= 1
    first.write_bytes(data)
    record = rf"record \d \(frames \d+ to \d+\) of video {store.videos[0]}"
    with pytest.raises(InputError, match=f"{first.name} has changed, {record}: copy") as caught:
        store.check()
    assert second.name not in str(caught.value)
    data[place] ^= 1
    data[-1] ^= 1
    first.write_bytes(data)
    with pytest.raises(InputError, match=f"{first.name} has changed, (in its index|but every)"):
        store.check()
    second.unlink()
    with pytest.raises(InputError, match=f"{first.name} .*{second.name} is missing"):
        store.check()
    with pytest.raises(InputError, match=f"{second.name}: missing or damaged"):
        store.frames(store.videos[1], [0])


def test_jpeg_is_smaller_close_and_marked(
    tmp_path: Path, store_path: Path, videos: list[Path]
) -> None:
    build(videos[:1], tmp_path / "x", encoding="jpeg_q95")
    lossy, exact = FrameStore.open(tmp_path / "x"), FrameStore.open(store_path)
    assert lossy.lossy and not exact.lossy and lossy.fingerprint != exact.fingerprint
    identity, positions = video_id(videos[0]), [49, 0, 31, 32, 0]
    found, source = (store.frames(identity, positions) for store in (lossy, exact))
    assert found.dtype == np.uint8 and found.shape == source.shape
    off = np.abs(found.astype(int) - source)
    assert off.max() > 0 and off.mean() < 3
    lossy.check()
    with pytest.raises(InputError, match='encoding: found "jpeg_q95", expected "raw"'):
        build(videos[:1], tmp_path / "x")


def test_a_file_that_hangs_is_set_aside(
    tmp_path: Path, store_path: Path, videos: list[Path]
) -> None:
    """Whoever opens a pipe waits for somebody to write into it."""
    pipe = tmp_path / "hangs.mp4"
    os.mkfifo(pipe)
    summary = build([pipe, *videos], tmp_path / "x", workers=2, seconds=8.0)
    assert (summary.videos, summary.quarantined) == (3, 1)
    (entry,) = frames.quarantined(tmp_path / "x")
    assert entry["path"] == str(pipe) and "not done after 8 s" in entry["reason"]
    for one in (*store_path.glob("frames-train*"), store_path / "subtitles.jsonl"):
        assert (tmp_path / "x" / one.name).read_bytes() == one.read_bytes()
    assert build([pipe, *videos], tmp_path / "x").reused


def test_reading_is_lazy_and_needs_no_tensorflow(store_path: Path) -> None:
    script = (
        "import sys\n"
        "from data_pipelines.frames import FrameStore\n"
        f"store = FrameStore.open({str(store_path)!r})\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "assert 'array_record' not in sys.modules\n"
        "store.frames(store.videos[0], [0])\n"
        "assert 'tensorflow' not in sys.modules\n"
        "assert 'jax' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)


def test_tfds_reads_the_folder_by_itself(store_path: Path, videos: list[Path]) -> None:
    import tensorflow_datasets as tfds

    records = tfds.builder_from_directory(store_path).as_data_source("train")
    assert len(records) == 2 + 1 + 3
    of_c = [r for r in records if r["video_id"].decode() == video_id(videos[2])]
    assert [r["first"] for r in of_c] == [0, 32, 64]
    np.testing.assert_array_equal(np.concatenate([r["numbers"] for r in of_c]), np.arange(96))
    assert of_c[0]["times"].dtype == np.float64


def test_store_survives_pickling(store_path: Path, videos: list[Path]) -> None:
    store = FrameStore.open(store_path)
    one = store.frames(video_id(videos[0]), [7])
    two = pickle.loads(pickle.dumps(store)).frames(video_id(videos[0]), [7])
    np.testing.assert_array_equal(one, two)
