"""`tpo import FOLDER OUT`: a PyTorch checkpoint -> Orbax, tensor by tensor."""

import argparse

from ml_collections import ConfigDict

from data_pipelines.artefacts import building, write_manifest
from tpo_jax.cli.progress import stage_progress
from tpo_jax.interop.imported import write_imported
from tpo_jax.interop.reader import KeysDiffer, open_checkpoint
from tpo_jax.interop.side_files import find_side_files
from tpo_jax.parallel.mesh import MeshConfig, make_mesh

MEGABYTE = 10**6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="config.json, safetensors and tokenizer, as LLaVA-Video, LLaVA-OneVision and LongVA "
        "are published, or as transformers saves LlavaOnevision; local or gs://",
    )
    parser.add_argument("out", metavar="OUT", help="folder to make; local or gs://")
    parser.epilog = (
        "Every verb also opens the PyTorch folder itself; importing is for pods, where each host "
        "then reads only its own shards. Weights keep the dtype they are stored in, and `tpo "
        "export --checkpoint=OUT` gives the same files back, bit for bit. Nothing is written "
        "unless every tensor is there, under its name and in its shape."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    import_checkpoint(args.folder, args.out)


def import_checkpoint(folder: str, out: str) -> None:
    """Import a folder.

    Raises:
      InputError: the folder is no whole checkpoint of a model that is implemented, or `out` is
        there already. Where keys differ, all of them are printed first.
    """
    with building(out) as partial:
        try:
            files = open_checkpoint(folder)
        except KeysDiffer as error:
            print(error.report)
            raise
        size = sum(tensor.size for tensor in files.tensors.values())
        with stage_progress("import (MB)", size // MEGABYTE) as update:
            fingerprint = write_imported(
                partial,
                files,
                mesh=make_mesh(MeshConfig()),
                progress=lambda done, total, name: update(done // MEGABYTE, name),
            )
        for file in find_side_files(folder):
            file.copy(partial / file.name, overwrite=True)
        made_from = {
            "source": fingerprint,
            "naming": files.naming.name,
            "config": files.json,
        }
        write_manifest(partial, "checkpoint", made_from, tensors=len(files.tensors), bytes=size)
    print(f"imported {len(files.tensors)} tensors, {size / 1e9:.2f} GB, into {out}")
