"""`tpo ask VIDEO QUESTION`: an answer about one video, as it is said."""

import argparse

from ml_collections import ConfigDict

from tpo_jax.api import ask, load
from tpo_jax.errors import InputError
from tpo_jax.generation.sampling import SamplingConfig

# What stands for a character whose bytes have not all been said yet.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
DEFAULTS = SamplingConfig()

HELP = """
  about all of a video, or about a part of it:
    tpo ask clip.mp4 "What comes first in the video?" --checkpoint=runs/mine/export
    tpo ask clip.mp4 "What happens here?" --start=61.5 --end=70 --frames=16
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HELP
    parser.add_argument("video", help="a video file; an image too, for models of LongVA's kind")
    parser.add_argument("question", help='in quotes, for example "What comes first in the video?"')
    parser.add_argument(
        "--checkpoint",
        default="demo_base",
        help="folder of a checkpoint, such as RUN_DIR/export (default: the demo's base model)",
    )
    parser.add_argument(
        "--frames", type=int, default=32, help="frames shown, uniform over the part (default: 32)"
    )
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="second to begin at (default: 0)"
    )
    parser.add_argument(
        "--end", type=float, metavar="S", help="second to end at (default: the video's end)"
    )
    parser.add_argument(
        "--tokens", type=int, default=256, help="of the answer, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=DEFAULTS.temperature,
        help="0 takes the likeliest token each time (default: 0)",
    )
    parser.add_argument("--top-k", type=int, default=DEFAULTS.top_k, help="0: all (default)")
    parser.add_argument("--top-p", type=float, default=DEFAULTS.top_p, help="1: all (default)")
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        default=DEFAULTS.repetition_penalty,
        help="above 1: words said before become less likely (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    sampling = SamplingConfig(
        max_new_tokens=args.tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
    )
    if args.frames < 1:
        raise InputError(f"--frames={args.frames}: show 1 or more")
    printed = ""

    def show(said: str) -> None:
        nonlocal printed
        new = unprinted(said, printed)
        print(new, end="", flush=True)
        printed += new

    answer = ask(
        load(args.checkpoint),
        args.video,
        args.question,
        frames=args.frames,
        sampling=sampling,
        seed=args.seed,
        start=args.start,
        end=args.end,
        listener=show,
    )
    print(unprinted(answer, printed))


def unprinted(said: str, printed: str) -> str:
    """What to print of an answer that grows; the beginning of a character waits for its end."""
    whole = said.rstrip(UNFINISHED).strip()
    return whole[len(printed) :] if whole.startswith(printed) else ""
