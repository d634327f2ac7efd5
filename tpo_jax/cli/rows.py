"""The rows that reference and training share: pairs, frames, tokenizer and model put together."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from jax.sharding import Mesh

from data_pipelines.artefacts import file_sha256, read_manifest
from data_pipelines.loader import PairRows
from data_pipelines.pairs import read_pairs
from tpo_jax.api import LoadedModel, load
from tpo_jax.attention import row_kernel, row_multiple
from tpo_jax.cli.frames import open_frames
from tpo_jax.cli.settings import RunConfig, as_json
from tpo_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """The model, the rows of all pairs, and what both are made from."""

    model: LoadedModel
    rows: PairRows
    made_from: dict[str, Any]


def read_rows(settings: RunConfig, wanted_by: str, mesh: Mesh) -> TrainingRows:
    """Open everything a row is made of; the model's parameters go to the mesh.

    A row holds both answers where the loss compares them, else the chosen one alone.

    Raises:
      InputError: an artefact is missing, or was made for another model or other frames; or a loss
        on pairs is wanted and a pair has no rejected answer.
    """
    platform = mesh.devices.flat[0].platform
    model = load(settings.checkpoint, remat=settings.train.remat, mesh=mesh)
    store = open_frames(settings, model.images, wanted_by)
    folder = settings.folder("pairs")
    frames_of_pairs = read_manifest(folder, "pairs")["made_from"]["frames"]
    if frames_of_pairs != store.fingerprint:
        raise InputError(
            f"{folder}: made from frame store {frames_of_pairs}, but {settings.folder('frames')} "
            f"is {store.fingerprint}; delete {folder} and run `tpo curate` again"
        )
    rows = PairRows(
        read_pairs(folder / "pairs.jsonl"),
        store,
        model.tokenizer,
        frames=settings.train_frames,
        visual_tokens=model.config.tokens_per_video(settings.train_frames),
        prompts=settings.prompts,
        # SFT alone learns from chosen answers only: rejected ones would be computed for nothing.
        answers=2 if settings.loss.needs_reference else 1,
        multiple=row_multiple(platform, mesh.shape["context"]),
    )
    made_from = {
        "pairs": file_sha256(folder / "pairs.jsonl")[:16],
        "frames": store.fingerprint,
        "model": model.fingerprint,
        "tokenizer": sha256(model.tokenizer.to_str().encode()).hexdigest()[:16],
        "prompts": as_json(settings.prompts),
        "train_frames": settings.train_frames,
        "row": as_json(rows.shape) | {"answers": rows.answers},
        "kernel": row_kernel(platform),
        "compute_dtype": settings.compute_dtype,
    }
    return TrainingRows(model=model, rows=rows, made_from=made_from)
