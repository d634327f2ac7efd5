"""A model made ready to answer about a store's videos, as the config says."""

from data_pipelines.frames import FrameStore
from tpo_jax.api import Answerer, LoadedModel, StoreAnswerer
from tpo_jax.cli.settings import RunConfig


def make_answerer(settings: RunConfig, model: LoadedModel, store: FrameStore) -> StoreAnswerer:
    """Curation and eval ask through the same one, so they prompt and sample alike."""
    answerer = Answerer(
        model,
        prompts=settings.prompts,
        sampling=settings.sampling,
        compute_dtype=settings.compute_dtype,
        seed=settings.seed,
    )
    return StoreAnswerer(model, answerer, store)
