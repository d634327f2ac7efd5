"""A model made ready to answer about a store's videos, as the config says."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from data_pipelines.answering import Answer, Request
from data_pipelines.frames import FrameStore
from tpo_jax.api import Answerer, LoadedModel
from tpo_jax.cli.eval_videos import VideoFiles
from tpo_jax.cli.settings import RunConfig
from tpo_jax.parallel.mesh import make_host_mesh, make_mesh
from tpo_jax.parallel.rules import SHARDS


class StoreAnswerer:
    """Answers questions about the videos of a FrameStore: the `VideoModel` of the host side."""

    def __init__(self, model: LoadedModel, answerer: Answerer, store: FrameStore, *, keep: int = 1):
        """Args: who answers, about what, and of how many videos the visual tokens are kept.

        A video is asked about several times in curation, for captions and for answers.
        """
        self.name = f"{model.folder.name}@{model.fingerprint}"
        self._answerer = answerer
        self._store = store
        self._keep = keep
        self._seen: dict[str, Float[Array, "M D"]] = {}  # by video, the latest last

    def answer(self, video_id: str, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request, in order."""
        info = self._store.info(video_id)
        if any(len(request.positions) for request in requests):
            visual_MD = self._encoded(video_id, len(info.times_F))
        else:
            visual_MD = self._answerer.nothing_seen()
        times_F = self._answerer.told_times(info)
        return self._answerer.answer(visual_MD, times_F, info.duration, requests)

    def _encoded(self, video_id: str, frames: int) -> Float[Array, "M D"]:
        seen = self._seen
        if video_id not in seen:
            while len(seen) >= self._keep:  # before another takes its memory
                del seen[next(iter(seen))]
            seen[video_id] = self._answerer.encode(self._store.frames(video_id, np.arange(frames)))
        seen[video_id] = seen.pop(video_id)
        return seen[video_id]


NO_FRAMES = np.zeros((0, 1, 1, 3), np.uint8)


class ShownFrames:
    """Asks once about each video; only frames that some request shows are read and encoded."""

    def __init__(self, model: LoadedModel, answerer: Answerer, store: FrameStore | VideoFiles):
        self.name = f"{model.folder.name}@{model.fingerprint}"
        self._answerer = answerer
        self._store = store

    def answer(self, video_id: str, requests: Sequence[Request]) -> list[Answer]:
        """An answer for each request, in order."""
        info = self._store.info(video_id)
        shown = np.unique(np.concatenate([one.positions for one in requests]))
        moved = [replace(one, positions=np.searchsorted(shown, one.positions)) for one in requests]
        times_F = self._answerer.told_times(info)[shown]
        frames_FHWC = self._store.frames(video_id, shown) if len(shown) else NO_FRAMES
        return self._answerer.answer_frames(frames_FHWC, times_F, info.duration, moved)


def answering_mesh(settings: RunConfig) -> Mesh | None:
    """The config's mesh where it splits the model; None where one device holds all of it.

    Over `data` alone nothing is gained: a prompt's prefix is computed once, whoever needs it. Of
    several hosts each answers by itself, about videos of its own: the mesh is over its devices.
    """
    several = jax.process_count() > 1
    mesh = make_host_mesh(settings.mesh) if several else make_mesh(settings.mesh)
    split = any(mesh.shape[axis] > 1 for axis in (*SHARDS, "tensor"))
    return mesh if split else None


def make_answerer(
    settings: RunConfig,
    model: LoadedModel,
    store: FrameStore,
    mesh: Mesh | None = None,
    keep: int = 1,
) -> StoreAnswerer:
    """For curation, which asks several times about a video.

    With a mesh, the model must have been loaded onto it. The visual tokens of the last `keep`
    videos are kept.
    """
    return StoreAnswerer(model, _answerer(settings, model, mesh), store, keep=keep)


def make_examiner(settings: RunConfig, model: LoadedModel, store: FrameStore) -> ShownFrames:
    """For eval, which asks all that it asks about a video at once."""
    return ShownFrames(model, _answerer(settings, model), store)


def _answerer(settings: RunConfig, model: LoadedModel, mesh: Mesh | None = None) -> Answerer:
    """Curation and eval ask through alike ones, so they prompt and sample alike."""
    return Answerer(
        model,
        prompts=settings.prompts,
        sampling=settings.sampling,
        compute_dtype=settings.compute_dtype,
        seed=settings.seed,
        mesh=mesh,
    )
