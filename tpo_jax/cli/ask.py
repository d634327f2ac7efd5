"""`tpo ask VIDEO QUESTION`: an answer about one video."""

import argparse

from ml_collections import ConfigDict

from tpo_jax.api import ask, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("video", help="a video file")
    parser.add_argument("question", help='in quotes, for example "What comes first in the video?"')
    parser.add_argument(
        "--checkpoint",
        default="demo_base",
        help="folder of a checkpoint, such as RUN_DIR/export (default: the demo's base model)",
    )
    parser.add_argument(
        "--frames", type=int, default=32, help="frames shown, uniform over the video (default: 32)"
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    print(ask(load(args.checkpoint), args.video, args.question, frames=args.frames))
