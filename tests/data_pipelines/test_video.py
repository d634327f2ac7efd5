"""Exact frames, and files that are not whole videos."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.video import decode_frames, read_index, video_id

REAL_VIDEO = Path(__file__).parents[2] / "../shared/videos/dc_demo.mp4"
needs_real_video = pytest.mark.skipif(
    not REAL_VIDEO.exists(), reason="the sample clip dc_demo.mp4 is not here"
)
Make = Callable[..., Path]
Read = Callable[[np.ndarray], int]
VARIABLE_PTS = np.cumsum([0] + [60 * (1 + i * 7 % 5) for i in range(59)]).tolist()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.avi"])
def test_constant_rate(tmp_path: Path, make_video: Make, read_stamp: Read, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    index = read_index(make_video(tmp_path / name, codec=codec))
    assert len(index.times_F) == 60
    np.testing.assert_allclose(index.times_F, np.arange(60) / 25, atol=1e-3)
    assert index.duration == pytest.approx(2.4, abs=2e-3)
    assert index.fps == pytest.approx(25, rel=1e-3)
    # Across key frames, within a group, neighbours, the first and the last.
    numbers = [0, 1, 11, 12, 13, 30, 47, 59]
    assert [read_stamp(rgb) for rgb in decode_frames(index, numbers)] == numbers


def test_variable_rate(tmp_path: Path, make_video: Make, read_stamp: Read) -> None:
    index = read_index(make_video(tmp_path / "a.mp4", pts=VARIABLE_PTS))
    np.testing.assert_allclose(index.times_F, np.array(VARIABLE_PTS) / 3000, atol=1e-9)
    for numbers in (range(60), range(0, 60, 7), [58, 59], [40]):
        assert [read_stamp(rgb) for rgb in decode_frames(index, list(numbers))] == list(numbers)


def test_edit_list_hides_frames(tmp_path: Path, make_video: Make, read_stamp: Read) -> None:
    """A copy that begins in the middle of a group keeps packets that no player shows."""
    whole = make_video(tmp_path / "whole.mp4")
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            assert packet.pts is not None and packet.time_base is not None
            offset = round(0.2 / packet.time_base)
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = stream
            target.mux(packet)
    index = read_index(cut)
    shown = [read_stamp(rgb) for rgb in decode_frames(index, list(range(len(index.times_F))))]
    with av.open(str(cut)) as container:
        played = [
            read_stamp(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    assert shown == played
    assert index.times_F[0] == 0.0


def test_frames_come_upright(tmp_path: Path, make_video: Make, read_stamp: Read) -> None:
    path = make_video(tmp_path / "a.mp4", count=10)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30]  # 90 degrees clockwise
    data[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in quarter)
    path.write_bytes(data)
    (rgb,) = decode_frames(read_index(path), [5])
    assert read_stamp(np.rot90(rgb, k=1)) == 5 != read_stamp(rgb)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("garbage.mp4", "not a video"),
        ("empty.mp4", "file is empty"),
        ("moov_cut.mp4", "cut off"),
        ("tail_cut.mp4", "cut off"),
        ("half.mp4", "cut off"),
        ("last_frame_cut.mp4", "cut off"),
        ("most.avi", "cut off"),
        ("half.mkv", "cut off"),
        ("sound.mp4", "no video stream"),
        ("nowhere.mp4", "No such file"),
    ],
)
def test_index_is_refused(bad_videos: dict[str, Path], name: str, reason: str) -> None:
    path = bad_videos["empty.mp4"].with_name(name)
    with pytest.raises(InputError, match=reason) as caught:
        read_index(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_found(bad_videos: dict[str, Path]) -> None:
    index = read_index(bad_videos["damaged.mp4"])
    with pytest.raises(InputError, match="damaged"):
        list(decode_frames(index, list(range(len(index.times_F)))))


@needs_real_video
def test_damage_is_not_painted_over(tmp_path: Path) -> None:
    """Left to itself the decoder makes up the first damaged frame and reports nothing."""
    data = bytearray(REAL_VIDEO.read_bytes())
    third = len(data) // 3
    data[third : third + 3000] = np.random.default_rng(0).bytes(3000)
    (tmp_path / "a.mp4").write_bytes(data)
    index = read_index(tmp_path / "a.mp4")
    assert len(list(decode_frames(index, [850]))) == 1
    with pytest.raises(InputError, match="damaged"):
        list(decode_frames(index, [851]))


def test_numbers_must_ascend_within_the_video(tmp_path: Path, make_video: Make) -> None:
    index = read_index(make_video(tmp_path / "a.mp4", count=10))
    assert list(decode_frames(index, [])) == []
    for numbers in ([1, 0], [1, 1], [-1, 0], [10]):
        with pytest.raises(ValueError, match=r"0\.\.9"):
            next(decode_frames(index, numbers))


def test_video_id_is_of_the_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"abc")
    assert video_id(tmp_path / "a") == video_id(tmp_path / "b") == "ba7816bf8f01cfea"
    with pytest.raises(InputError, match="cannot be read"):
        video_id(tmp_path / "c")


@needs_real_video
def test_real_clip() -> None:
    index = read_index(REAL_VIDEO)
    assert (len(index.times_F), index.fps) == (2428, pytest.approx(25.0))
    assert index.duration == pytest.approx(97.12)
    sought = dict(zip([100, 700], decode_frames(index, [100, 700]), strict=True))
    with av.open(str(REAL_VIDEO)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in sought:
                np.testing.assert_array_equal(sought[number], frame.to_ndarray(format="rgb24"))
            if number == 700:
                break
