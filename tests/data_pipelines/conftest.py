"""Small videos whose every frame carries its number, so that a test can say which it got."""

import fractions
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from tokenizers import Tokenizer

from data_pipelines.lessons import train_tokenizer

BLOCK = 16
SIDE = 4 * BLOCK


def stamp(number: int) -> np.ndarray:
    """A 64x64 picture of 16 blocks, black or white: the bits of `number`."""
    bits = [255 * (number >> bit & 1) for bit in range(16)]
    blocks = np.array(bits, dtype=np.uint8).reshape(4, 4)
    return np.repeat(np.kron(blocks, np.ones((BLOCK, BLOCK), np.uint8))[:, :, None], 3, axis=2)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The demo's, of 512 tokens; shared, so do not change it."""
    return train_tokenizer(512)


@pytest.fixture(scope="session")
def read_stamp() -> Callable[[np.ndarray], int]:
    """Reads the number back from a frame of any size, whatever the codec did to it."""

    def read(rgb: np.ndarray) -> int:
        block = rgb.shape[0] // 4
        centres = rgb[block // 2 :: block, block // 2 :: block, 0].reshape(-1) > 127
        return int(sum(1 << bit for bit in np.flatnonzero(centres).tolist()))

    return read


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Writes a video of stamped frames; `pts` in 1/3000 s makes the frame rate variable."""

    def make(
        path: Path,
        count: int = 60,
        *,
        fps: int = 25,
        first: int = 0,
        pts: Sequence[int] | None = None,
        codec: str = "libx264",
        **muxer: Any,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        time_base = fractions.Fraction(1, 3000 if pts else fps)
        with av.open(str(path), "w", options=muxer) as container:
            options = {"bf": "2", "g": "12"}
            stream: Any = container.add_stream(codec, rate=fps, options=options)
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = time_base
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(stamp(first + number), format="rgb24")
                frame.pts = pts[number] if pts else number
                frame.time_base = time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


def last_frame(path: Path) -> int:
    """Where the data of the last frame begins in the file."""
    with av.open(str(path)) as container:
        return max(entry.pos for entry in container.streams.video[0].index_entries)


@pytest.fixture(scope="session")
def bad_videos(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]
) -> dict[str, Path]:
    """Files that look like videos by name and are not, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    whole = make_video(folder / "whole.mp4")
    faststart = make_video(folder / "faststart.mp4", movflags="faststart")
    matroska = make_video(folder / "whole.mkv", count=150)
    old = make_video(folder / "whole.avi", codec="mpeg4")
    data = whole.read_bytes()
    damaged = bytearray(faststart.read_bytes())
    media = damaged.index(b"mdat")
    half = media + (len(damaged) - media) // 2
    damaged[half : half + 200] = b"\xff" * 200
    contents = {
        "garbage.mp4": np.random.default_rng(0).bytes(5000),
        "empty.mp4": b"",
        "moov_cut.mp4": data[: data.index(b"moov") - 4],
        "tail_cut.mp4": faststart.read_bytes()[:-40],
        "half.mp4": faststart.read_bytes()[:half],
        "last_frame_cut.mp4": faststart.read_bytes()[: last_frame(faststart)],
        "most.avi": old.read_bytes()[: old.stat().st_size * 3 // 4],
        "half.mkv": matroska.read_bytes()[: matroska.stat().st_size // 2],
        "damaged.mp4": bytes(damaged),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = SIDE
        cover.pix_fmt = "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(stamp(0), format="rgb24")))
        container.mux(cover.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        sound.pts = 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return {name: folder / name for name in [*contents, "sound.mp4"]}
