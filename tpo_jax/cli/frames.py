"""`tpo frames`: videos -> FrameStore."""

import argparse
import json
import math
import shlex
from pathlib import Path
from typing import get_args

from ml_collections import ConfigDict

from data_pipelines.artefacts import check_made_from
from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.frames_on_beam import BeamConfig
from data_pipelines.images import ImagePolicy
from data_pipelines.shards import Encoding
from data_pipelines.survey import Survey, survey
from data_pipelines.video_files import find_videos
from tpo_jax.api import checkpoint_images
from tpo_jax.cli.planned_model import find_model
from tpo_jax.cli.progress import duration_text, stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, read_settings

# Nothing takes as long that is not stuck: a day of video is read through in less.
TIME_LIMIT = 900.0
SHOWN = 5
UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))

HELP = """
Decodes each video once. A bad, hanging or empty file is set aside in quarantine.jsonl of the store,
with its reason, and the rest go on. Killed and run again, only what is missing is done, and the
store is the same byte for byte. Subtitles inside a video, and NAME.srt or NAME.en.srt beside it,
are kept.

  what config.videos would take, and then do it, into RUN_DIR/frames:
    tpo frames --config=own_videos --dry-run
    tpo frames --config=own_videos

  other videos, to another folder, as JPEG (a sixth of the size, but not quite the same pixels):
    tpo frames gs://bucket/videos store --config=own_videos --encoding=jpeg_q95

  decoded by other machines, on Apache Beam (pip install tpo_jax[beam]); they and this one meet in
  a bucket or on a shared disk, and the store is the same, byte for byte:
    tpo frames gs://bucket/videos store --config=own_videos --exchange=gs://bucket/tmp \
      --beam='--runner=DataflowRunner --project=P --region=R --temp_location=gs://bucket/beam'

  does a store that was copied still have every byte:
    tpo frames --check videos store --config=own_videos
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HELP
    parser.add_argument(
        "videos",
        nargs="?",
        metavar="VIDEOS",
        help="folder, video, or list of videos (.txt, one a line); gs:// too (default: "
        "config.videos)",
    )
    parser.add_argument(
        "out", nargs="?", metavar="OUT", help="folder of the store (default: RUN_DIR/frames)"
    )
    parser.add_argument(
        "--encoding",
        choices=get_args(Encoding),
        default="raw",
        help="of stored frames (default: %(default)s, exact)",
    )
    parser.add_argument(
        "--time-limit",
        type=seconds,
        default=TIME_LIMIT,
        metavar="SECONDS",
        help="a file that takes longer is set aside (default: %(default)g)",
    )
    parser.add_argument(
        "--beam",
        metavar="FLAGS",
        help="decode on Apache Beam, with these flags in quotes; workers need tpo_jax installed",
    )
    parser.add_argument(
        "--exchange",
        metavar="FOLDER",
        help="with --beam: where workers leave what they stored, in a bucket or on a shared disk "
        "(default: beside OUT, which then must be on a shared disk)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--dry-run", action="store_true", help="say what it would take, store nothing"
    )
    what.add_argument("--check", action="store_true", help="compare a store with its checksums")
    parser.add_argument("--json", action="store_true", help="print what --dry-run finds as JSON")


def seconds(text: str) -> float:
    """A positive number."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number of seconds")
    return number


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    videos = args.videos or settings.videos
    out = Path(args.out) if args.out else settings.folder("frames")
    if args.check:
        check_store(out)
    elif args.dry_run:
        tell_survey(settings, videos, args)
    else:
        store_videos(
            settings,
            videos,
            out,
            encoding=args.encoding,
            time_limit=args.time_limit,
            beam=read_beam(args),
        )


def read_beam(args: argparse.Namespace) -> BeamConfig | None:
    """What --beam and --exchange say.

    Raises:
      InputError: --exchange without --beam, or --beam is no line of flags.
    """
    if args.beam is None:
        if args.exchange is not None:
            raise InputError(f"--exchange={args.exchange}: only used with --beam; give that too")
        return None
    try:
        flags = tuple(shlex.split(args.beam))
    except ValueError as error:
        raise InputError(f"--beam={args.beam}: {error}; quote it as a shell would") from error
    if wrong := [flag for flag in flags if not flag.startswith("--")]:
        raise InputError(f"--beam: {wrong[0]!r} is no flag; write each as --name=value")
    return BeamConfig(flags=flags, exchange=args.exchange)


def make_frames(settings: RunConfig) -> FrameStore:
    """Decode config.videos to RUN_DIR/frames."""
    return store_videos(settings, settings.videos, settings.folder("frames"))


def store_videos(
    settings: RunConfig,
    videos: str,
    out: Path,
    *,
    encoding: Encoding = "raw",
    time_limit: float | None = None,
    beam: BeamConfig | None = None,
) -> FrameStore:
    """Decode every video under `videos` to a store fit for the config's checkpoint."""
    paths = find_videos(videos)
    images = checkpoint_images(settings.checkpoint)
    with stage_progress(f"frames of {videos}", len(paths)) as update:
        summary = build_store(
            paths,
            out,
            frame_policy=settings.frames,
            image_policy=images,
            encoding=encoding,
            workers=settings.workers,
            seconds=time_limit,
            beam=beam,
            progress=lambda done, total, detail: update(done, detail),
        )
        if summary.reused:
            update(len(paths), "done before")
    if summary.quarantined:
        print(
            f"{summary.quarantined} of {len(paths)} files set aside: see {out / 'quarantine.jsonl'}"
        )
    return FrameStore.open(out)


def check_store(folder: Path) -> None:
    """Compare every shard with its checksum.

    Raises:
      InputError: there is no store, or it is damaged; names shards and records.
    """
    store = FrameStore.open(folder)
    with stage_progress(f"checksums of {folder}", len(store.videos)) as update:
        store.check(lambda done, total, detail: update(done, detail))
    print(f"{folder}: all {len(store.videos)} videos are as they were stored")


def tell_survey(settings: RunConfig, videos: str, args: argparse.Namespace) -> None:
    """Print what storing the videos would take."""
    paths = find_videos(videos)
    with stage_progress(f"indexes of {videos}", len(paths)) as update:
        found = survey(
            paths,
            frame_policy=settings.frames,
            image_policy=checkpoint_images(settings.checkpoint),
            encoding=args.encoding,
            workers=settings.workers,
            seconds=args.time_limit,
            progress=lambda done, total, detail: update(done, detail),
        )
    tokens = find_model(None, settings.checkpoint).config.tokens_per_video(settings.train_frames)
    if args.json:
        print(json.dumps(_survey_json(found, settings, tokens)))
        return
    print(f"files    {found.files:,} of {len(paths):,}, {size_text(found.source_bytes)}")
    print(f"hours    {found.hours:,.2f}")
    print(f"frames   {found.frames:,} stored; {settings.train_frames} of each video in training")
    print(f"tokens   {tokens:,} of each video in training, {tokens * found.files:,} of all")
    print(f"store    {size_text(found.store_bytes)} ({args.encoding})")
    spent = duration_text(found.decode_seconds / settings.workers)
    print(
        f"time     {spent} with {settings.workers} workers; "
        f"this and the size are estimates from {found.tried} frames"
    )
    for path, reason in found.refused[:SHOWN]:
        print(f"refused  {path}: {reason}")
    if len(found.refused) > SHOWN:
        print(f"refused  and {len(found.refused) - SHOWN:,} more")


def size_text(size: float) -> str:
    """Bytes as people say them: "3.74 MB"."""
    name, unit = next((pair for pair in UNITS if size >= pair[1]), UNITS[-1])
    return f"{size / unit:,.2f} {name}"


def _survey_json(found: Survey, settings: RunConfig, tokens: int) -> dict[str, object]:
    return as_json(found) | {
        "refused": [{"path": str(path), "reason": reason} for path, reason in found.refused],
        "workers": settings.workers,
        "train_frames": settings.train_frames,
        "tokens_per_video": tokens,
    }


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
