"""`tpo export`: checkpoint -> PyTorch files."""

import argparse
from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict

from data_pipelines.artefacts import building, read_manifest, write_manifest
from tpo_jax.api import LoadedModel, load
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings
from tpo_jax.interop.writer import write_checkpoint
from tpo_jax.training.checkpoints import read_params
from tpo_jax.training.loop import CHECKPOINTS_FOLDER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Writes the trained weights to RUN_DIR/export as safetensors under the names of the LLaVA "
        "code, with config.json and the tokenizer. `tpo ask` and every verb with a checkpoint open "
        "the folder too."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    out = export_policy(read_settings(config))
    print(f"exported to {out}")


def load_policy(settings: RunConfig) -> LoadedModel:
    """The run's trained model.

    Raises:
      InputError: the run has not been trained, or from another checkpoint than the config says.
    """
    base = load(settings.checkpoint)
    folder = settings.folder("train")
    manifest = read_manifest(folder, "train")
    params = read_params(folder / CHECKPOINTS_FOLDER)
    return replace(base, folder=folder, params=params, fingerprint=manifest["fingerprint"])


def export_policy(settings: RunConfig) -> Path:
    """Write the trained policy for PyTorch; returns the folder."""
    train_fingerprint = read_manifest(settings.folder("train"), "train")["fingerprint"]
    made_from = {"train": train_fingerprint, "export": as_json(settings.export)}
    out = settings.folder("export")
    with stage_progress("export", 1) as update:
        if is_done(out, "export", made_from):
            update(1, "done before")
            return out
        model = load_policy(settings)
        base = load(settings.checkpoint)
        with building(out) as partial:
            write_checkpoint(
                partial,
                config=model.config,
                params=model.params,
                json=model.json,
                dtype=settings.export.dtype,
                tokenizer_files=sorted(base.folder.glob("tokenizer*.json")),
            )
            write_manifest(partial, "export", made_from)
        update(1)
    return out
