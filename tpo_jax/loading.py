"""A checkpoint in memory, from a folder or a bucket."""

from dataclasses import dataclass, replace
from pathlib import Path

from etils import epath
from flax import nnx
from jax.sharding import Mesh
from tokenizers import Tokenizer

from data_pipelines.images import ImagePolicy
from data_pipelines.tokenizer import load_tokenizer
from tpo_jax.errors import InputError
from tpo_jax.interop.imported import is_imported, read_imported
from tpo_jax.interop.keys import Naming
from tpo_jax.interop.reader import read_checkpoint, read_config
from tpo_jax.models.checkpoint_config import image_mode, model_config
from tpo_jax.models.remat import Remat
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model
from tpo_jax.parallel.rules import check_heads

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A checkpoint in memory: fp32 parameters, structure, tokenizer, and where it came from."""

    folder: epath.Path
    config: VideoLMMConfig
    graph: nnx.GraphDef
    params: Params
    tokenizer: Tokenizer
    fingerprint: str
    json: dict
    naming: Naming

    @property
    def images(self) -> ImagePolicy:
        """How frames are resized for this model's encoder."""
        return _image_policy(self.config)


def find_checkpoint(name: str) -> epath.Path:
    """A checkpoint folder (local or gs://), or one that ships with the package (`demo_base`)."""
    for folder in (epath.Path(name), epath.Path(ASSETS) / name):
        if (folder / "config.json").exists():
            return folder
    raise InputError(
        f"{name}: no checkpoint here; give a folder with config.json, model.safetensors and "
        "tokenizer.json, or one that `tpo import` wrote, or the name demo_base"
    )


def checkpoint_images(name: str) -> ImagePolicy:
    """How frames are resized for a checkpoint's encoder; reads config.json only."""
    return _image_policy(model_config(read_config(find_checkpoint(name))))


def _image_policy(config: VideoLMMConfig) -> ImagePolicy:
    return ImagePolicy(size=config.vision.image_size, mode=image_mode(config))


def load(name: str, *, remat: Remat = "none", mesh: Mesh | None = None) -> LoadedModel:
    """Load a checkpoint: a PyTorch folder or an imported one, local or in a bucket (gs://).

    Args:
      name: the folder, or the name of a checkpoint that ships with the package.
      remat: what is kept going forward, to train it with less memory: see `models/remat.py`.
      mesh: where the fp32 parameters go, tensor by tensor into their shards. Without one they are
        on this host (a PyTorch folder) or on the first device (an imported one).

    Raises:
      InputError: the folder is missing, its files do not fit together, or the mesh cuts its heads.
    """
    folder = find_checkpoint(name)
    if mesh is not None:
        check_heads(model_config(read_config(folder)), mesh)
    read = read_imported if is_imported(folder) else read_checkpoint
    checkpoint = read(folder, mesh=mesh)
    language = replace(checkpoint.config.language, remat=remat)
    config = replace(checkpoint.config, language=language)
    graph, _ = abstract_model(config)
    return LoadedModel(
        folder=folder,
        config=config,
        graph=graph,
        params=checkpoint.params,
        tokenizer=load_tokenizer(folder),
        fingerprint=checkpoint.fingerprint,
        json=checkpoint.json,
        naming=checkpoint.naming,
    )
