"""A file of pairs as the TFDS data set `tpo_pairs`.

    records = tfds.data_source("tpo_pairs", data_dir=FOLDER, split="train")

reads it where only TFDS is installed. Lists of any length are stored as bytes, since TFDS would
store whole numbers eight times as large; what JSON alone can hold is stored as JSON.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.artefacts import write_text
from data_pipelines.errors import InputError
from data_pipelines.pair_card import render_card
from data_pipelines.pair_counts import count_rows
from data_pipelines.pair_formats.row import from_pair
from data_pipelines.pairs import Pair, read_pairs

NAME = "tpo_pairs"
TEXTS = (
    "id",
    "video_id",
    "granularity",
    "kind",
    "question",
    "chosen",
    "rejected",
    "negative",
    "generator",
    "judge",
    "source",
    "licence",
)
JSON = ("sampling", "judge_said", "made_with")
NUMBERS = {"chosen_frames": np.int64, "rejected_frames": np.int64, "segment": np.float64}


class TpoPairs(tfds.core.GeneratorBasedBuilder):
    """Split `train`: one record a pair, in the order of the file.

    A pair without a rejected answer has `has_rejected` False and an empty `rejected`; a pair
    without a segment has an empty one.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.0.0": "The fields of pairs.jsonl.", "1.1.0": "made_with"}

    def __init__(self, *, pairs: Path | str | None = None, **kwargs: Any):
        """Args of any builder, and `pairs`: the file to build from; not needed to read."""
        self._pairs = None if pairs is None else Path(pairs)
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> Any:
        texts = {name: tfds.features.Text() for name in (*TEXTS, *JSON)}
        numbers = {
            name: tfds.features.Tensor(shape=(None,), dtype=kind, encoding="bytes")
            for name, kind in NUMBERS.items()
        }
        single = {
            "has_rejected": tfds.features.Scalar(np.bool_),
            "round": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pairs for preference training of video language models.",
            features=tfds.features.FeaturesDict(texts | numbers | single),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        if self._pairs is None:
            raise InputError(f"{NAME}: say which file to build from: TpoPairs(pairs=FILE)")
        return {"train": self._generate_examples(read_pairs(self._pairs))}

    def _generate_examples(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, pair in enumerate(pairs):
            yield number, as_record(pair)


def as_record(pair: Pair) -> dict[str, Any]:
    """A pair as the features hold it."""
    record = asdict(pair) | {"has_rejected": pair.rejected is not None}
    record["rejected"] = pair.rejected or ""
    for name, kind in NUMBERS.items():
        record[name] = np.array(record[name] or [], dtype=kind)
    for name in JSON:
        record[name] = json.dumps(record[name], ensure_ascii=False)
    return record


def as_pair(record: Mapping[str, Any]) -> Pair:
    """The pair of a record that was read."""
    fields: dict[str, Any] = {name: record[name].decode() for name in TEXTS}
    fields |= {name: record[name].tolist() for name in NUMBERS}
    fields |= {name: json.loads(record[name]) for name in JSON}
    fields["round"] = int(record["round"])
    if not record["has_rejected"]:
        fields["rejected"] = None
    return Pair(**fields | {"segment": fields["segment"] or None})


def build(pairs: Path, data_dir: Path) -> Path:
    """Builds the data set of a file of our pairs, and its card; returns its folder.

    Args:
      pairs: pairs.jsonl.
      data_dir: holds data sets; this one becomes `tpo_pairs/1.1.0` in it.

    Raises:
      InputError: the file is no file of pairs, or the data set is there already.
    """
    rows = [from_pair(pair, str(pairs)) for pair in read_pairs(pairs)]
    builder = TpoPairs(pairs=pairs, data_dir=data_dir)
    folder = Path(builder.data_path)
    if folder.exists():
        raise InputError(f"{folder}: exists already; delete it or choose another folder")
    tfds.disable_progress_bar()
    # It downloads nothing, but would leave an empty folder for that.
    with tempfile.TemporaryDirectory() as downloads:
        builder.download_and_prepare(download_dir=downloads)
    write_text(folder / "README.md", render_card(NAME, count_rows(rows)))
    return folder
