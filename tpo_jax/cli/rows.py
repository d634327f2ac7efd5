"""The rows that reference and training share: pairs, frames, tokenizer and model put together."""

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from jax.sharding import Mesh

from data_pipelines.artefacts import read_manifest
from data_pipelines.loader import PairRows
from data_pipelines.mixture import Mixture, read_mixture
from tpo_jax.api import LoadedModel, load
from tpo_jax.attention import row_kernel, row_multiple
from tpo_jax.cli.frames import open_frames
from tpo_jax.cli.settings import RunConfig, as_json
from tpo_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """The model, the rows of all pairs, their numbers in an epoch, and what all is made from."""

    model: LoadedModel
    rows: PairRows
    numbers: np.ndarray
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
    mixture = _read_pairs(settings, store.fingerprint)
    rows = PairRows(
        mixture.pairs,
        store,
        model.tokenizer,
        frames=settings.train_frames,
        visual_tokens=model.config.tokens_per_video(settings.train_frames),
        prompts=settings.prompts,
        # SFT alone learns from chosen answers only: rejected ones would be computed for nothing.
        answers=2 if settings.loss.needs_reference else 1,
        multiple=row_multiple(platform, mesh.shape["context"]),
        answer_buckets=settings.train.answer_buckets,
        max_tokens=settings.train.max_tokens,
    )
    made_from = {
        "pairs": _pairs_fingerprint(mixture),
        "frames": store.fingerprint,
        "model": model.fingerprint,
        "tokenizer": sha256(model.tokenizer.to_str().encode()).hexdigest()[:16],
        "prompts": as_json(settings.prompts),
        "train_frames": settings.train_frames,
        "rows": [as_json(shape) | {"answers": rows.answers} for shape in rows.shapes],
        "kernel": row_kernel(platform),
        "compute_dtype": settings.compute_dtype,
    }
    # By id: rows have no place for pairs that were dropped.
    places = {pair.id: number for number, pair in enumerate(rows.pairs)}
    ids = [mixture.pairs[number].id for number in mixture.numbers]
    numbers = np.array([places[one] for one in ids if one in places], np.int64)
    return TrainingRows(model=model, rows=rows, numbers=numbers, made_from=made_from)


def _read_pairs(settings: RunConfig, frames: str) -> Mixture:
    """The pairs of the config's mixture, or else those of the run, which know their frame store."""
    if settings.mixture:
        return read_mixture(settings.mixture, seed=settings.seed)
    folder = settings.folder("pairs")
    frames_of_pairs = read_manifest(folder, "pairs")["made_from"]["frames"]
    if frames_of_pairs != frames:
        raise InputError(
            f"{folder}: made from frame store {frames_of_pairs}, but {settings.folder('frames')} "
            f"is {frames}; delete {folder} and run `tpo curate` again"
        )
    return read_mixture([str(folder / "pairs.jsonl")], seed=settings.seed)


def _pairs_fingerprint(mixture: Mixture) -> str:
    """16 hex digits over the pairs and how often each comes."""
    digest = sha256(np.asarray(mixture.numbers, "<i8").tobytes())
    for pair in mixture.pairs:
        digest.update(json.dumps(as_json(pair), sort_keys=True).encode())
    return digest.hexdigest()[:16]
