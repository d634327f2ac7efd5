"""`tpo export`: checkpoint -> PyTorch files."""

import argparse
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tokenizers import Tokenizer

from data_pipelines.artefacts import building, read_manifest, write_manifest
from data_pipelines.tokenizer import load_tokenizer
from tpo_jax.api import LoadedModel, find_checkpoint, load
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, is_done, read_settings
from tpo_jax.errors import InputError
from tpo_jax.interop import keys, side_files
from tpo_jax.interop.imported import is_imported, open_imported
from tpo_jax.interop.reader import Checkpoint, open_checkpoint, read_checkpoint
from tpo_jax.interop.writer import DTYPES, write_checkpoint
from tpo_jax.models.checkpoint_config import llava_json
from tpo_jax.models.onevision_config import is_onevision, onevision_json
from tpo_jax.training.checkpoints import best_step, read_params, stored_params
from tpo_jax.training.loop import CHECKPOINTS_FOLDER

MEGABYTE = 10**6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "out",
        metavar="OUT",
        nargs="?",
        help="folder to make, local or gs:// (default: RUN_DIR/export)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        help="export this checkpoint (imported or PyTorch) instead of the config's trained model",
    )
    parser.add_argument(
        "--step",
        type=which_step,
        metavar="N",
        help="export the training checkpoint of step N, or `best` by config.train.keep_best_by "
        "(default: the newest)",
    )
    parser.add_argument(
        "--layout",
        choices=sorted(keys.NAMINGS),
        help="tensor names and config.json: llava is the authors' code, onevision is transformers' "
        "LlavaOnevision (default: as the model came)",
    )
    parser.add_argument(
        "--dtype",
        choices=("stored", "float32", "bfloat16"),
        help="of the weights (default: config.export.dtype; with --checkpoint: stored)",
    )
    parser.add_argument(
        "--accept-other-newlines",
        action="store_true",
        help="write LLaVA-Video in the onevision layout although transformers will place one "
        "newline at the end of the video instead of one after each row",
    )
    parser.epilog = (
        "Writes config.json, the weights as safetensors and the tokenizer with its chat template. "
        "`tpo ask` and every verb with a checkpoint open the folder too."
    )


def which_step(text: str) -> int | Literal["best"]:
    """An option's value: steps done, or "best"."""
    if text != "best" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of steps nor best")
    return "best" if text == "best" else int(text)


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    target = {"layout": args.layout, "accept_other_newlines": args.accept_other_newlines}
    if args.checkpoint is None:
        out: Any = export_policy(
            read_settings(config), args.out, dtype=args.dtype, step=args.step, **target
        )
    elif args.step is not None:
        raise InputError("--step chooses a checkpoint of the run; --checkpoint is exported whole")
    elif args.out is None:
        raise InputError("with --checkpoint, give the folder to write: tpo export OUT ...")
    else:
        out = epath.Path(args.out)
        export_checkpoint(args.checkpoint, out, dtype=args.dtype or "stored", **target)
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


def export_policy(
    settings: RunConfig,
    out: str | None = None,
    *,
    layout: str | None = None,
    dtype: str | None = None,
    step: int | Literal["best"] | None = None,
    accept_other_newlines: bool = False,
) -> epath.Path:
    """Write the trained policy, or what it was at a step, for PyTorch; returns the folder."""
    dtype = dtype or settings.export.dtype
    train_folder = settings.folder("train")
    made_from = {
        "train": read_manifest(train_folder, "train")["fingerprint"],
        "export": as_json(settings.export) | {"dtype": dtype, "layout": layout or "as it came"},
    }
    if step is not None:
        step = best_step(train_folder / CHECKPOINTS_FOLDER) if step == "best" else step
        made_from["step"] = step
    target = epath.Path(out or settings.folder("export"))
    if is_done(target, "export", made_from):
        with stage_progress("export", 1) as update:
            update(1, "done before")
        return target
    base = find_checkpoint(settings.checkpoint)
    checkpoint = _open_source(base)
    params = stored_params(train_folder / CHECKPOINTS_FOLDER, step)
    # The rows that padded the vocabulary on the training mesh are stored too.
    rows = params["language"]["embed"]["embedding"].shape[0]
    padding = rows - checkpoint.config.language.vocab_rows
    language = replace(checkpoint.config.language, padding_rows=padding)
    trained = replace(
        checkpoint, params=params, config=replace(checkpoint.config, language=language)
    )
    _write(target, trained, base, made_from, layout, dtype, accept_other_newlines)
    return target


def export_checkpoint(
    name: str,
    out: epath.Path,
    *,
    layout: str | None = None,
    dtype: str = "stored",
    accept_other_newlines: bool = False,
) -> None:
    """Write a checkpoint folder, imported or PyTorch, as a PyTorch folder.

    Raises:
      InputError: the checkpoint is broken or cannot be put into that layout, or `out` exists.
    """
    folder = find_checkpoint(name)
    if is_imported(folder):
        checkpoint = open_imported(folder)
    else:
        checkpoint = read_checkpoint(folder, dtype=None)
    made_from = {"checkpoint": checkpoint.fingerprint, "layout": layout, "dtype": dtype}
    _write(out, checkpoint, folder, made_from, layout, dtype, accept_other_newlines)


def _open_source(folder: epath.Path) -> Checkpoint:
    """What a run's base is, without its weights."""
    if is_imported(folder):
        return open_imported(folder)
    files = open_checkpoint(folder)
    return Checkpoint(
        config=files.config, params={}, json=files.json, naming=files.naming, fingerprint=""
    )


def _write(
    out: epath.Path,
    checkpoint: Checkpoint,
    source: epath.Path,
    made_from: dict[str, Any],
    layout: str | None,
    dtype: str,
    accept_other_newlines: bool,
) -> None:
    naming = keys.NAMINGS[layout] if layout else checkpoint.naming
    tokenizer = load_tokenizer(source)
    to_onevision = naming is not keys.LLAVA
    converts = to_onevision != is_onevision(checkpoint.json)
    json = checkpoint.json
    if converts and to_onevision:
        json = _as_onevision(checkpoint, tokenizer, dtype, accept_other_newlines)
    elif converts:
        json = llava_json(checkpoint.config, onevision=json)
    stored = None if dtype == "stored" else DTYPES[dtype]
    size = sum(
        math.prod(leaf.shape) * (stored or leaf.dtype).itemsize
        for _, leaf in keys.flat_paths(checkpoint.params)
    )
    with building(out) as partial, stage_progress("export (MB)", size // MEGABYTE) as update:
        write_checkpoint(
            partial,
            config=checkpoint.config,
            params=checkpoint.params,
            json=json,
            naming=naming,
            dtype=None if dtype == "stored" else dtype,
            side_files=side_files.find_side_files(source),
            progress=lambda done, total, name: update(done // MEGABYTE, name),
        )
        if converts and to_onevision:
            side_files.write_onevision_files(partial, tokenizer, checkpoint.config, json)
        side_files.complete_side_files(partial, tokenizer)
        write_manifest(partial, "export", made_from)


def _as_onevision(
    checkpoint: Checkpoint, tokenizer: Tokenizer, dtype: str, accept_other_newlines: bool
) -> dict[str, Any]:
    rows = checkpoint.config.language.vocab_rows
    image, video = side_files.add_picture_tokens(tokenizer, rows)
    stored = np.dtype(checkpoint.params["language"]["norm"]["scale"].dtype)
    return onevision_json(
        checkpoint.config,
        image_token=image,
        video_token=video,
        image_grid_pinpoints=checkpoint.json.get("image_grid_pinpoints"),
        dtype=stored.name if dtype == "stored" else dtype,
        accept_other_newlines=accept_other_newlines,
    )
