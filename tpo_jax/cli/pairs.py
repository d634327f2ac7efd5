"""`tpo pairs`: a file of pairs, ours or others' -> counts, another format, a page, a data set."""

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.artefacts import MANIFEST_NAME, write_text
from data_pipelines.frames import FrameStore
from data_pipelines.pair_card import origin_warnings
from data_pipelines.pair_counts import count_rows, find_useless
from data_pipelines.pair_formats.csv_table import parse_columns
from data_pipelines.pair_formats.formats import OURS, READABLE, WRITABLE, read_rows, write_rows
from data_pipelines.pair_formats.row import ORIGIN, UNKNOWN, Row, resolve
from data_pipelines.pair_pages import marking_page
from data_pipelines.pairs import Pair
from data_pipelines.tokenizer import load_tokenizer
from data_pipelines.video_names import VideoNames, open_videos
from tpo_jax.cli.pair_tables import print_counts
from tpo_jax.cli.progress import warn
from tpo_jax.errors import InputError

USELESS = {
    "duplicate": "saying the same as an earlier one",
    "identical": "whose chosen and rejected answers are the same text",
    "identical_tokens": "whose chosen and rejected answers are the same tokens",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("file", metavar="FILE", help="pairs: JSON, JSON lines or CSV")
    parser.add_argument(
        "--from",
        dest="source_format",
        choices=READABLE,
        help="the file's format (default: told by its first row)",
    )
    parser.add_argument(
        "--columns",
        metavar="FIELD=COLUMN,...",
        help="csv: which column holds video, prompt, chosen, rejected (rejected= where there is "
        "none), id, source, licence, generator; one of the field's own name needs no telling",
    )
    parser.add_argument(
        "--videos",
        metavar="FOLDER",
        help="the folder of the videos, or a frame store (RUN_DIR/frames); turns names of files "
        "into the ids of our pairs, and back",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        help="count in tokens of this checkpoint, and find answers that are the same in them",
    )
    parser.add_argument(
        "--without",
        metavar="FILE",
        help="leave out the pairs whose ids are in this file, one a line, as the page saves them",
    )
    for key in ORIGIN:
        parser.add_argument(
            f"--{key}", metavar="TEXT", help=f"the {key} of the pairs that do not say theirs"
        )
    parser.add_argument("--to", choices=WRITABLE, help="convert to this format; needs --out")
    parser.add_argument(
        "--out", metavar="FILE", help="what to write; .json gives others' as a list"
    )
    parser.add_argument(
        "--video-root",
        metavar="FOLDER",
        default="",
        help="put this before the videos' names in what is written in others' formats",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write a page to look through the pairs and mark bad ones; --videos must be a frame "
        "store",
    )
    parser.add_argument(
        "--show",
        metavar="N",
        type=int,
        default=100,
        help="pairs on that page at most (default: %(default)s)",
    )
    parser.add_argument(
        "--tfds",
        metavar="DATA_DIR",
        help="build the TFDS data set tpo_pairs there, with a dataset card",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.epilog = (
        "Counts what is there and changes nothing in FILE. What is written leaves out pairs that "
        "say the same as an earlier one and pairs with nothing to prefer, and says how many."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    _check_options(args)
    path = Path(args.file)
    columns = None if args.columns is None else parse_columns(args.columns)
    name, rows = read_rows(path, args.source_format, columns)
    told = {key: getattr(args, key) for key in ORIGIN if getattr(args, key)}
    rows = [_with_origin(row, told) for row in rows]
    videos = None if args.videos is None else open_videos(Path(args.videos))
    if videos is not None:
        rows = [resolve(row, videos) for row in rows]
    if args.without is not None:
        rows = _without(rows, Path(args.without))
    tokenizer = None
    if args.checkpoint is not None:
        # Imported here: JAX is slow to start, and nothing else needs it.
        from tpo_jax.api import find_checkpoint

        tokenizer = load_tokenizer(find_checkpoint(args.checkpoint))
    counts = count_rows(rows, tokenizer)
    for key, number in Counter(key for row in rows for key in row.left_out).items():
        warn(f"{path}: not read: {key} ({number} of {len(rows)} rows)")
    if args.json:
        print(json.dumps({"format": name, **counts.as_json()}, ensure_ascii=False, indent=1))
    else:
        print_counts(path, name, counts)
    if not (args.to or args.html or args.tfds):
        return
    useless = find_useless(rows, tokenizer)
    kept = [row for number, row in enumerate(rows) if number not in useless]
    for reason, number in Counter(useless.values()).items():
        say(f"left out: {number} pairs {USELESS[reason]}")
    if args.to or args.tfds:
        for sentence in origin_warnings(count_rows(kept)):
            warn(sentence)
    if args.to:
        write_rows(Path(args.out), args.to, kept, videos, args.video_root)
        say(f"{args.out}: {len(kept)} pairs as {args.to}")
    if args.html:
        _write_page(args, kept)
    if args.tfds:
        _build_data_set(path, name, kept, videos, Path(args.tfds))


def say(text: str) -> None:
    """Print to stderr: what is on stdout may be JSON."""
    print(text, file=sys.stderr, flush=True)


def _check_options(args: argparse.Namespace) -> None:
    if (args.to is None) != (args.out is None):
        raise InputError("--to and --out go together: --to=FORMAT --out=FILE")
    if args.show < 1:
        raise InputError(f"--show={args.show}: must be 1 or more")
    if args.html is None:
        return
    if args.videos is None or not (Path(args.videos) / MANIFEST_NAME).exists():
        raise InputError(
            "--html needs frames: --videos=FOLDER must be a frame store (`tpo frames`)"
        )
    if Path(args.html).exists():
        raise InputError(f"{args.html}: exists already; delete it or choose another name")


def _with_origin(row: Row, told: dict[str, str]) -> Row:
    """The row, told where it does not say itself where it comes from."""
    missing: dict[str, Any] = {
        key: text for key, text in told.items() if getattr(row, key) in ("", UNKNOWN)
    }
    if not missing:
        return row
    pair = row.pair and replace(row.pair, **missing)
    return replace(row, pair=pair, **missing)


def _without(rows: Sequence[Row], path: Path) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    ids = {line.strip() for line in lines} - {""}
    strangers = ids - {row.id for row in rows}
    if strangers:
        raise InputError(
            f"{path}: {len(strangers)} of {len(ids)} ids are of no pair in the file "
            f"(first: {min(strangers)!r}); rows without an id get theirs with --videos"
        )
    return [row for row in rows if row.id not in ids]


def _pairs(rows: Sequence[Row]) -> list[Pair]:
    return [row.pair for row in rows if row.pair is not None]


def _write_page(args: argparse.Namespace, rows: Sequence[Row]) -> None:
    if not rows:
        raise InputError(f"{args.html}: no pair is left to show")
    store = FrameStore.open(Path(args.videos))
    about = "Each answer stands below frames it was made from, or below frames of the whole video."
    page = marking_page(f"Pairs of {Path(args.file).name}", _pairs(rows), store, args.show, about)
    write_text(Path(args.html), page.render())
    say(f"{args.html}: {min(args.show, len(rows))} of {len(rows)} pairs to look at")


def _build_data_set(
    path: Path, name: str, rows: Sequence[Row], videos: VideoNames | None, data_dir: Path
) -> None:
    import tempfile

    # Imported here: TFDS takes a while to load.
    from data_pipelines.builders.tpo_pairs.tpo_pairs import build

    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "pairs.jsonl"
        write_rows(ours, OURS, rows, videos)
        with contextlib.redirect_stdout(sys.stderr):
            built = build(ours, data_dir)
    say(f'{built}: read it with tfds.data_source("tpo_pairs", data_dir="{data_dir}")')
