"""The loader beside the raw read of its records, and beside decoding on the fly.

Rows of 32 frames of 384 x 384, the same videos in the same order, three ways that take turns:

  raw     ArrayRecordReader.read of the records: bytes, decompressed, nothing made of them. The most
          that this format gives.
  ours    batches as training gets them: frames, tokens, masks (data_pipelines/loader.py); as many
          threads.
  torch   a PyTorch DataLoader whose workers decode the frames from the videos with PyAV and resize
          them with Pillow, as the authors' trainer does. No text.

    python -m benchmarks.speed.loader                   # makes noisy videos of its own
    python -m benchmarks.speed.loader --videos=FOLDER
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.batch_plan import BatchPlan
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.lessons import train_tokenizer
from data_pipelines.loader import PairRows, load_batches
from data_pipelines.pairs import Pair
from data_pipelines.prompts import PromptPolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.shards import shard_name
from data_pipelines.video import decode_frames, read_index, video_id
from data_pipelines.video_files import find_videos

FRAMES, SIZE = 32, 384
FRAME_POLICY = FramePolicy(kind="uniform", max_frames=FRAMES)
IMAGE_POLICY = ImagePolicy(size=SIZE)
MADE_SECONDS, MADE_RATE = 20, 25


def make_video(path: Path, seed: int) -> None:
    """640 x 360 H.264 of drifting blurred noise, so that frames do not compress to nothing."""
    import av

    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (90, 200, 3), np.uint8)
    ground = np.kron(small, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=MADE_RATE, options={"preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(MADE_SECONDS * MADE_RATE):
            view = ground[number % 300 : number % 300 + 360, number : number + 640]
            noise = rng.integers(0, 12, view.shape, np.uint8)
            shown = np.ascontiguousarray(view // 2 + noise)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode(None))


@dataclass(frozen=True)
class Videos:
    """What PyTorch's workers are given: decodes one video an item."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> np.ndarray:
        index = read_index(self.paths[number])
        numbers = FRAME_POLICY.choose(len(index.times_F), index.fps)
        return np.stack([IMAGE_POLICY.prepare(one) for one in decode_frames(index, numbers, 1)])


def raw_rows(store: FrameStore, order: Sequence[int], threads: int) -> Iterator[int]:
    """Reads one record a row. A video of this store has one."""
    from array_record.python.array_record_module import ArrayRecordReader

    count = len(store.videos)
    readers = [ArrayRecordReader(str(store.path / shard_name(n, count))) for n in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        for size in pool.map(lambda number: len(readers[number].read([0])[0]), order):
            assert size > FRAMES * SIZE * SIZE * 3
            yield 1


def our_rows(rows: PairRows, order: Sequence[int], batch: int, threads: int) -> Iterator[int]:
    """Batches of training."""
    numbers = np.array(order).reshape(-1, batch)
    plan = BatchPlan(numbers_SB=numbers, buckets_S=np.zeros(len(numbers), np.int64))
    for one in load_batches(rows, plan, threads=threads):
        assert one["frames"].shape == (batch, FRAMES, SIZE, SIZE, 3)
        yield batch


def torch_rows(
    paths: Sequence[Path], order: Sequence[int], batch: int, workers: int
) -> Iterator[int]:
    """Batches decoded by PyTorch's workers."""
    from torch.utils.data import DataLoader

    dataset: Any = Videos(tuple(paths[number] for number in order))
    for one in DataLoader(dataset, batch_size=batch, num_workers=workers, shuffle=False):
        assert one.shape == (batch, FRAMES, SIZE, SIZE, 3)
        yield batch


def rate(rows: Callable[[], Iterator[int]]) -> float:
    """Rows a second, from the asking for the first to the last."""
    start = time.monotonic()
    return sum(rows()) / (time.monotonic() - start)


def make_rows(store: FrameStore) -> PairRows:
    """A pair a video, with answers of usual lengths."""
    pairs = [
        Pair(
            id=video,
            video_id=video,
            granularity="localized",
            kind="any",
            question="What happens right after the red shapes have moved to the left?",
            chosen="The green circles move up. " * 8,
            rejected="The blue stars move to the right. " * 8,
            negative="irrelevant",
            chosen_frames=[0],
            rejected_frames=[1],
            segment=[0.0, 1.0],
            generator="none",
            sampling={},
            judge="none",
        )
        for video in store.videos
    ]
    return PairRows(
        pairs,
        store,
        train_tokenizer(512),
        frames=FRAMES,
        visual_tokens=FRAMES * 210,
        prompts=PromptPolicy(time_instruction=True),
    )


def main() -> int:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", metavar="FOLDER", help="(default: eight that are made)")
    parser.add_argument("--batch", type=int, default=2, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--rows", type=int, default=384, metavar="N", help="a turn, ours and raw")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="that read ahead")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="of PyTorch's")
    arguments = parser.parse_args()
    batch = arguments.batch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.videos:
            paths = find_videos(arguments.videos)
        else:
            (folder / "videos").mkdir()
            for number in range(8):
                make_video(folder / "videos" / f"{number}.mp4", number)
            paths = find_videos(folder / "videos")
        build_store(paths, folder / "store", frame_policy=FRAME_POLICY, image_policy=IMAGE_POLICY)
        store = FrameStore.open(folder / "store")
        by_id = {video_id(path): path for path in paths}
        paths = [by_id[video] for video in store.videos]
        rng = np.random.default_rng(0)
        order = rng.integers(0, len(paths), arguments.rows // batch * batch).tolist()
        few = order[: max(len(order) // 32 // batch, 1) * batch]  # decoding is slow
        rows = make_rows(store)
        ways: dict[str, Callable[[], Iterator[int]]] = {
            "raw": lambda: raw_rows(store, order, arguments.threads),
            "ours": lambda: our_rows(rows, order, batch, arguments.threads),
            "torch": lambda: torch_rows(paths, few, batch, arguments.workers),
        }
        found: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(arguments.turns + 1):
            for way, run in ways.items():
                seen = rate(run)
                if turn:  # the first fills the page cache
                    found[way].append(seen)
                    print(f"turn {turn}: {way} {seen:.1f} rows/s", file=sys.stderr, flush=True)
    print("| | rows/s (median) | ours / it, each turn |")
    print("|---|---|---|")
    for way, rates in found.items():
        ratios = [ours / other for ours, other in zip(found["ours"], rates, strict=True)]
        told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {way} | {statistics.median(rates):.1f} | {told} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
