"""Subtitles from files beside a video and from inside it, with their times."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore, quarantined
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.subtitles import Line, _text, files_by_video, read_file, read_inside
from data_pipelines.video import read_index, video_id

Make = Callable[..., Path]
SRT = """1
00:00:00,500 --> 00:00:02,000
<font color="white" size=".72c">Grüße</font>
second line

2
00:00:03,000 --> 00:00:04,250
bye
"""
LINES = (
    Line(0.5, 2.0, '<font color="white" size=".72c">Grüße</font>\nsecond line'),
    Line(3.0, 4.25, "bye"),
)


def write_srt(path: Path) -> Path:
    path.write_text(SRT, encoding="utf-8")
    return path


def with_subtitles(video: Path, srt: Path, out: Path, later: float) -> Path:
    """The video with the subtitles inside, all of it `later` seconds later."""
    with av.open(str(video)) as source, av.open(str(srt)) as text, av.open(str(out), "w") as made:
        streams = {one: made.add_stream_from_template(one.streams[0]) for one in (source, text)}
        packets: list[Any] = []
        for one, stream in streams.items():
            packet: Any
            for packet in one.demux(one.streams[0]):
                if packet.size:
                    shift = round(Fraction(later) / packet.time_base)
                    packet.pts += shift
                    packet.dts = packet.pts if packet.dts is None else packet.dts + shift
                    packet.stream = stream
                    packets.append(packet)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            made.mux(packet)
    return out


def test_a_file(tmp_path: Path) -> None:
    track = read_file(write_srt(tmp_path / "movie.pt-BR.srt"))
    assert (track.source, track.language, track.lines) == ("movie.pt-BR.srt", "pt-BR", LINES)
    assert track.between(2.0, 3.0) == () and track.between(1.9, 3.1) == LINES
    assert read_file(write_srt(tmp_path / "movie.srt")).language is None
    (tmp_path / "bad.srt").write_text("no times here")
    with pytest.raises(InputError, match=r"bad.srt: its subtitles cannot be read"):
        read_file(tmp_path / "bad.srt")


def test_which_files_belong_to_a_video(tmp_path: Path) -> None:
    for name in ("a.srt", "a.en.srt", "a.b.SRT", "other.srt", ".a.srt", "a.txt"):
        write_srt(tmp_path / name)
    found = {key: [path.name for path in paths] for key, paths in files_by_video(tmp_path).items()}
    # "b" could be a language only if it had two letters.
    assert found == {
        "a": ["a.en.srt", "a.srt"],
        "a.en": ["a.en.srt"],
        "a.b": ["a.b.SRT"],
        "other": ["other.srt"],
    }


def test_times_inside_a_video_count_from_its_first_frame(tmp_path: Path, make_video: Make) -> None:
    video, srt = make_video(tmp_path / "plain.mp4", count=5), write_srt(tmp_path / "text.srt")
    made = with_subtitles(video, srt, tmp_path / "made.mkv", later=10.0)
    index = read_index(made)
    assert index.start == pytest.approx(10.0, abs=0.1)
    (track,) = read_inside(made, index.start)
    assert track.source == "stream 1"
    assert [line.text for line in track.lines] == [line.text for line in LINES]
    for line, expected in zip(track.lines, LINES, strict=True):
        assert line[:2] == pytest.approx(expected[:2], abs=0.002)
    assert read_inside(video, 0.0) == []


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (b"\x00\x03bye\x00\x00\x00\x08styl", "mov_text"),
        (rb"7,0,Default,,0,0,0,,{\i1}bye", "ass"),
        (b" bye\n", "subrip"),
    ],
)
def test_text_of_packets(data: bytes, codec: str) -> None:
    assert _text(data, codec) == "bye"


def test_a_store_keeps_them(tmp_path: Path, make_video: Make) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    plain = make_video(folder / "a.mkv", count=5)
    inner = with_subtitles(
        make_video(tmp_path / "b.mp4", count=5, first=50),
        write_srt(folder / "a.en.srt"),
        folder / "b.mkv",
        later=0.0,
    )
    (folder / "b.srt").write_text("no times here")
    policies: dict[str, Any] = {
        "frame_policy": FramePolicy(),
        "image_policy": ImagePolicy(size=32),
    }
    summary = build_store([plain, inner], tmp_path / "store", **policies)
    store = FrameStore.open(tmp_path / "store")
    (track,) = store.subtitles(video_id(plain))
    assert (track.source, track.language, track.lines) == ("a.en.srt", "en", LINES)
    (track,) = store.subtitles(video_id(inner))
    assert track.source == "stream 1" and len(track.lines) == 2
    assert summary.quarantined == 1
    (bad,) = quarantined(tmp_path / "store")
    assert bad["path"] == str(folder / "b.srt") and "cannot be read" in bad["reason"]
    with pytest.raises(InputError, match="not among the 2 stored"):
        store.subtitles("0" * 16)
