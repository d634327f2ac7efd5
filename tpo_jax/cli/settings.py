"""The whole config as dataclasses, and where a run keeps its artefacts."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from etils import epath
from ml_collections import ConfigDict

from data_pipelines.artefacts import UNFINISHED_NAME, check_made_from, read_manifest
from data_pipelines.curation.config import CurateConfig
from data_pipelines.prompts import PromptPolicy
from data_pipelines.sampling import FramePolicy
from tpo_jax.bucket import in_bucket, path_at
from tpo_jax.cli.config import to_dataclass
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.models.remat import Remat
from tpo_jax.parallel.distributed import DistributedConfig
from tpo_jax.parallel.mesh import MeshConfig
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.loop import LoopConfig
from tpo_jax.training.optimizer import OptimizerConfig
from tpo_jax.training.profile import ProfileConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimizerConfig, LoopConfig):
    """Optimizer, loop, and pairs a step. `steps=0` means `epochs` over the pairs.

    A step computes its pairs in `accumulate` parts, one after another: less memory, same result.
    `remat` says what of each layer is kept for the way back (`models/remat.py`): the less, the less
    memory and the more time. `xla_options` are the TPU compiler's, each NAME=VALUE.

    Pairs are grouped by the first of `answer_buckets` tokens that holds their answers, and padded
    to the longest of their group: short ones then cost less, and a step is compiled for
    each. `max_tokens` bounds prompt and answer, 0 does not. `loader_workers` processes load
    batches, 0 means threads. After SIGTERM a checkpoint may take `grace_seconds`.
    """

    batch_pairs: int
    accumulate: int = 1
    epochs: int = 1
    remat: Remat = "full"
    xla_options: tuple[str, ...] = ()
    answer_buckets: tuple[int, ...] = ()
    max_tokens: int = 0
    loader_workers: int = 0
    grace_seconds: float = 25.0

    def __post_init__(self) -> None:
        """ValueError where the optimizer or the loop refuses its settings."""
        OptimizerConfig.__post_init__(self)
        LoopConfig.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Scoring on synthetic videos: their folder, the truth's side file, questions a video."""

    videos: str
    truth: str
    frames: int = 32
    localized_per_video: int = 4
    comprehensive_per_video: int = 4
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Number format of the exported weights."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Videos the demo makes for itself, by split, and (fewest, most) events in each."""

    train: int
    development: int
    heldout: int
    events: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ArmsConfig:
    """The ways of training that `tpo demo` compares (`cli/arms.py`), and with how many seeds."""

    names: tuple[str, ...] = ("sft", "random", "tpo")
    seeds: int = 3


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run. `train_frames` frames, uniform over the whole video, are shown for both answers.

    `mixture` names files of pairs to train on instead of those in RUN_DIR/pairs
    (`data_pipelines/mixture.py`). `frames_dir` is a frame store that several runs share, instead of
    RUN_DIR/frames. `train_dir` is kept instead of RUN_DIR/train, and may be in a bucket (gs://).
    """

    run_dir: str
    videos: str
    checkpoint: str
    mixture: tuple[str, ...] = ()
    frames_dir: str = ""
    train_dir: str = ""
    seed: int
    workers: int
    train_frames: int
    compute_dtype: Literal["float32", "bfloat16"]
    frames: FramePolicy
    prompts: PromptPolicy
    sampling: SamplingConfig
    curate: CurateConfig
    mesh: MeshConfig
    loss: TPOLoss
    train: TrainConfig
    eval: EvalConfig
    export: ExportConfig
    synthetic: SyntheticConfig
    arms: ArmsConfig = ArmsConfig()
    profile: ProfileConfig = ProfileConfig()
    distributed: DistributedConfig = DistributedConfig()

    def __post_init__(self) -> None:
        """ValueError where a folder is in a bucket that cannot be, or not one of Google's."""
        for name in ("run_dir", "frames_dir"):
            if in_bucket(getattr(self, name)):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be a local folder: only train_dir, "
                    "videos and checkpoint may be in a bucket"
                )
        if in_bucket(self.train_dir) and not self.train_dir.startswith("gs://"):
            raise ValueError(f"train_dir is {self.train_dir}; of buckets only gs:// will do")

    def folder(self, artefact: str) -> Path:
        """Where this run keeps `frames`, `pairs`, `reference`, `train`, `eval`, `export`."""
        if artefact == "frames" and self.frames_dir:
            return Path(self.frames_dir)
        if artefact == "train" and self.train_dir:
            return path_at(self.train_dir)
        return Path(self.run_dir) / artefact

    def below(self, name: str) -> "RunConfig":
        """A run of its own in a folder of this one, over the same frames."""
        return replace(
            self,
            run_dir=str(Path(self.run_dir) / name),
            frames_dir=str(self.folder("frames")),
            train_dir=str(path_at(self.train_dir) / name) if self.train_dir else "",
        )


def read_settings(config: ConfigDict | None) -> RunConfig:
    """The config of a verb as dataclasses, strictly checked."""
    assert config is not None
    return to_dataclass(RunConfig, config)


def as_json(settings: Any) -> dict[str, Any]:
    """A dataclass as it is recorded in a manifest."""
    return dataclasses.asdict(settings)


def is_done(folder: epath.PathLike, kind: str, made_from: Mapping[str, Any]) -> bool:
    """Whether the artefact is there, whole, and made from exactly this.

    Raises:
      InputError: it is there but was made from something else; says what differs.
    """
    folder = path_at(folder)
    if not folder.exists() or (folder / UNFINISHED_NAME).exists():  # the latter in buckets only
        return False
    manifest = read_manifest(folder, kind)
    mend = f"delete {folder} (and what was made from it), or use another config.run_dir"
    check_made_from(folder, manifest["made_from"], made_from, mend)
    return True
