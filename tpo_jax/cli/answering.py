"""A model made ready to answer about a store's videos, as the config says."""

from jax.sharding import Mesh

from data_pipelines.frames import FrameStore
from tpo_jax.api import Answerer, LoadedModel, StoreAnswerer
from tpo_jax.cli.settings import RunConfig
from tpo_jax.parallel.mesh import make_mesh
from tpo_jax.parallel.rules import SHARDS


def answering_mesh(settings: RunConfig) -> Mesh | None:
    """The config's mesh where it splits the model; None where one device holds all of it.

    Over `data` alone nothing is gained: a prompt's prefix is computed once, whoever needs it.
    """
    mesh = make_mesh(settings.mesh)
    split = any(mesh.shape[axis] > 1 for axis in (*SHARDS, "tensor"))
    return mesh if split else None


def make_answerer(
    settings: RunConfig, model: LoadedModel, store: FrameStore, mesh: Mesh | None = None
) -> StoreAnswerer:
    """Curation and eval ask through the same one, so they prompt and sample alike.

    With a mesh, the model must have been loaded onto it.
    """
    answerer = Answerer(
        model,
        prompts=settings.prompts,
        sampling=settings.sampling,
        compute_dtype=settings.compute_dtype,
        seed=settings.seed,
        mesh=mesh,
    )
    return StoreAnswerer(model, answerer, store)
