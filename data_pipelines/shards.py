"""The record format of a FrameStore: one ArrayRecord shard a video, in TFDS features.

TFDS and ArrayRecord are imported where they are used: they take a while to load, and most of what
imports this never touches a record. TensorFlow is not needed.
"""

import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_pipelines.artefacts import sync_file
from data_pipelines.example_bytes import read_example, read_integer

NAME = "frames"
RECORD_FRAMES = 32
# One record a group, so that a segment of a long video reads only its own records.
WRITER_OPTIONS = "group_size:1,zstd:1"
# How frames are kept: every byte, or as JPEG of quality 95, colours not subsampled, which is off by
# 1.4 of 255 levels on the mean of a natural frame and a sixth of the size.
Encoding = Literal["raw", "jpeg_q95"]
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}


def shard_name(row: int, count: int) -> str:
    """Returns the file name that TFDS expects of shard `row` of `count`."""
    return f"{NAME}-train.array_record-{row:05d}-of-{count:05d}"


def record_count(frame_count: int) -> int:
    """Returns how many records hold `frame_count` frames of one video."""
    return -(-frame_count // RECORD_FRAMES)


def write_shard(
    path: Path,
    video_id: str,
    times_F: npt.NDArray[np.float64],
    numbers_F: npt.NDArray[np.int64],
    frames: Iterator[npt.NDArray[np.uint8]],
    encoding: Encoding = "raw",
) -> None:
    """Writes one video's shard; `path` appears only when all of it is on disk.

    Args:
      path: the shard.
      video_id: stored with every record.
      times_F: seconds, float64 [F].
      numbers_F: frame numbers in the source, int64 [F].
      frames: yields F arrays, uint8 [size, size, 3]; at most RECORD_FRAMES are held at once.
      encoding: of the frames in the shard.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    features = None
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
        try:
            for first in range(0, len(numbers_F), RECORD_FRAMES):
                part = slice(first, first + RECORD_FRAMES)
                pixels = np.stack(list(itertools.islice(frames, len(numbers_F[part]))))
                features = features or _features(pixels.shape[1], encoding)
                record = {
                    "video_id": video_id,
                    "first": np.int64(first),
                    "frames": pixels if encoding == "raw" else [_jpeg(one) for one in pixels],
                    "times": times_F[part],
                    "numbers": numbers_F[part],
                }
                writer.write(_serialize(features, record))
        finally:
            writer.close()
        sync_file(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_dataset(
    folder: Path,
    size: int,
    frame_counts: Sequence[int],
    byte_counts: Sequence[int],
    encoding: Encoding = "raw",
) -> None:
    """Writes the TFDS metadata beside finished shards.

    Args:
      folder: holds the shards under their `shard_name`.
      size: side of every frame in pixels.
      frame_counts: frames in each shard, in the order of the names.
      byte_counts: size of each shard's file.
      encoding: of the frames in all shards.
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, split="train", filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[record_count(frames) for frames in frame_counts],
        num_bytes=sum(byte_counts),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=_features(size, encoding),
        split_infos=[split],
        filename_template=template,
        check_data=False,  # the check needs TensorFlow
    )


def open_records(folder: Path, names: Sequence[str]) -> Any:
    """The records of a folder's shards as a random access sequence of bytes.

    Not by TFDS: that imports whatever module the folder's features.json names.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource([str(folder / name) for name in names])


def read_frames(
    records: Any, number: int, size: int, encoding: Encoding
) -> tuple[str, int, Sequence[npt.NDArray[np.uint8]]]:
    """Video id, number of the first frame, and the frames of record `number` of `open_records`.

    What TFDS gives, but raw frames are seen in the bytes that were read: not copied, read-only.

    Raises:
      RuntimeError, OSError, ValueError: the record cannot be read.
    """
    if encoding != "raw":
        record = _features(size, encoding).deserialize_example_np(records[number])
        return record["video_id"].decode(), int(record["first"]), record["frames"]
    found = read_example(records[number])
    pixels = np.frombuffer(found["frames"], np.uint8).reshape(-1, size, size, 3)
    return bytes(found["video_id"]).decode(), read_integer(found["first"]), pixels  # type: ignore[return-value]


def damaged_records(shard: Path, count: int) -> list[int] | None:
    """Numbers of the records that cannot be read, of a shard that should have `count`.

    Every record is a chunk with its own checksum. None: the file's own index is lost, and no record
    can be found. A shard that has changed may have no damaged record: the space between two chunks
    says nothing.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(shard))
    except (RuntimeError, OSError, ValueError):
        return None
    if reader.num_records() != count:
        return None
    bad = []
    for number in range(count):
        try:
            reader.read([number])
        except (RuntimeError, OSError, ValueError):
            bad.append(number)
    return bad


def _jpeg(pixels: npt.NDArray[np.uint8]) -> io.BytesIO:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **JPEG)
    stream.seek(0)
    return stream


def _features(size: int, encoding: Encoding) -> Any:
    import tensorflow_datasets as tfds

    pixels: Any = tfds.features.Tensor(
        shape=(None, size, size, 3), dtype=np.uint8, encoding="bytes"
    )
    if encoding != "raw":
        pixels = tfds.features.Sequence(
            tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
        )
    # encoding="bytes" throughout: by default uint8 becomes int64 and float64 becomes float32.
    return tfds.features.FeaturesDict(
        {
            "video_id": tfds.features.Text(),
            "first": tfds.features.Tensor(shape=(), dtype=np.int64),
            "frames": pixels,
            "times": tfds.features.Tensor(shape=(None,), dtype=np.float64, encoding="bytes"),
            "numbers": tfds.features.Tensor(shape=(None,), dtype=np.int64, encoding="bytes"),
        }
    )


def _serialize(features: Any, record: dict[str, Any]) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    # A protobuf map is written in an order that changes from process to process; shards must not.
    example = tf_example_pb2.Example.FromString(features.serialize_example(record))
    return example.SerializeToString(deterministic=True)
