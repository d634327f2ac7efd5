"""`tpo frames`: videos -> FrameStore."""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from data_pipelines.artefacts import check_made_from
from data_pipelines.frames import FrameStore, build_store
from data_pipelines.images import ImagePolicy
from data_pipelines.video import find_videos
from tpo_jax.api import checkpoint_images
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.epilog = (
        "Reads config.videos (a folder or one video) and writes RUN_DIR/frames. A bad video is set "
        "aside in quarantine.jsonl there, with its reason. Killed and run again, only what is "
        "missing is done."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    make_frames(read_settings(config))


def make_frames(settings: RunConfig) -> FrameStore:
    """Decode config.videos to RUN_DIR/frames."""
    return store_videos(settings, settings.videos, settings.folder("frames"))


def store_videos(settings: RunConfig, videos: str, out: Path) -> FrameStore:
    """Decode every video under `videos` to a store fit for the config's checkpoint."""
    paths = find_videos(videos)
    images = checkpoint_images(settings.checkpoint)
    with stage_progress(f"frames of {videos}", len(paths)) as update:
        summary = build_store(
            paths,
            out,
            frame_policy=settings.frames,
            image_policy=images,
            workers=settings.workers,
            progress=lambda done, total, detail: update(done, detail),
        )
        if summary.reused:
            update(len(paths), "done before")
    if summary.quarantined:
        print(
            f"{summary.quarantined} of {len(paths)} files set aside: see {out / 'quarantine.jsonl'}"
        )
    return FrameStore.open(out)


def open_frames(settings: RunConfig, images: ImagePolicy, wanted_by: str) -> FrameStore:
    """The run's store.

    Raises:
      InputError: there is none, or it holds other frames than the config says.
    """
    folder = settings.folder("frames")
    store = FrameStore.open(folder)
    check_made_from(
        folder,
        store.policies,
        {"frame_policy": as_json(settings.frames), "image_policy": as_json(images)},
        f"delete {folder} and run `tpo frames` again, or give `tpo {wanted_by}` the config that "
        "the store was made with",
    )
    return store
