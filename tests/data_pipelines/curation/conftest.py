"""Three short videos with known events, and what curation makes of them when left alone."""

from pathlib import Path

import pytest

from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.synthetic import read_truth, write_videos
from tests.data_pipelines.curation.knowing_model import World, run


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    truth = root / "elsewhere" / "truth.json"
    write_videos(root / "videos", truth, count=3, events=(5, 7), seed=3)
    told = read_truth(truth)
    build_store(
        sorted((root / "videos").iterdir()),
        root / "frames",
        frame_policy=FramePolicy(fps=2.0, max_frames=256),
        image_policy=ImagePolicy(size=14),
    )
    store = FrameStore.open(root / "frames")
    # Gone before anything is curated: nothing may need them.
    truth.unlink()
    for path in (root / "videos").iterdir():
        path.unlink()
    return World(store, {one: told[store.info(one).names[0]] for one in store.videos})


@pytest.fixture(scope="session")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "pairs"
    run(world, out)
    return out
