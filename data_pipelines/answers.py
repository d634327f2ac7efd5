"""Questions with answers that were made elsewhere, by a person or a language model.

They become pairs without a rejected answer, in the same artefact as the model's own: what
supervised fine-tuning learns from.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.artefacts import (
    building,
    check_unfinished,
    fingerprint,
    write_manifest,
    write_text,
)
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.json_text import parse_json
from data_pipelines.pairs import Granularity, Pair, write_pairs
from data_pipelines.video_names import VideoNames

KEYS = ("video", "question", "answer")
KIND = "given"
GRANULARITY: Granularity = "comprehensive"  # training shows the whole video
EXAMPLE = '{"video": "name.mp4", "question": "...", "answer": "..."}'


def read_answers(path: Path, store: FrameStore) -> list[Pair]:
    """Read JSON lines of "video", "question" and "answer" as pairs without a rejected answer.

    A video is told by one of its names in the store. Nobody says which frames an answer was made
    from, so the pairs tell none.

    Raises:
      InputError: no, an empty or an unreadable file, a line that is not such an object, a video
        that is not in the store, or the same line twice; names the line and the key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); give a UTF-8 file with a line an answer: {EXAMPLE}"
        ) from error
    if not text.strip():
        raise InputError(f"{path}: is empty; it must hold a line an answer: {EXAMPLE}")
    videos = VideoNames.from_store(store)
    pairs: list[Pair] = []
    lines: dict[str, int] = {}
    # Not splitlines: a text may hold U+2028 and its like, which JSON leaves as they are.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        where = f"{path}:{number}"
        entry = _read_line(line, where)
        pair = _pair(videos.find(entry["video"], where, "key 'video'"), entry, path)
        if lines.setdefault(pair.id, number) != number:
            raise InputError(f"{where}: says the same as line {lines[pair.id]}; delete one of them")
        pairs.append(pair)
    return pairs


def keep_answers(pairs: Sequence[Pair], out: Path, made_from: dict[str, Any]) -> None:
    """Write the artefact that curation writes: pairs.jsonl, an empty dropped.jsonl, manifest.json.

    Raises:
      InputError: `out` exists, or what is there half-done was made from something else.
    """
    # To resume is not needed here, but a curation that was cut off must not be swept away.
    with building(out, resume=True) as partial:
        check_unfinished(partial, made_from)
        write_pairs(partial / "pairs.jsonl", pairs)
        write_text(partial / "dropped.jsonl", "")
        write_manifest(
            partial,
            "pairs",
            made_from,
            pairs=len(pairs),
            mix={GRANULARITY: len(pairs)},
            candidates=len(pairs),
            dropped={},
        )


def _read_line(line: str, where: str) -> dict[str, str]:
    """The three texts of a line."""
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); a line is {EXAMPLE}") from error
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not a JSON object; a line is {EXAMPLE}")
    unknown = [key for key in entry if key not in KEYS]
    for key in KEYS:
        if key not in entry:
            similar = difflib.get_close_matches(key, unknown, n=1)
            mend = f"rename {similar[0]!r} to it" if similar else f"a line is {EXAMPLE}"
            raise InputError(f"{where}: has no key {key!r}; {mend}")
    if unknown:
        raise InputError(f"{where}: has an unknown key {unknown[0]!r}; leave it out")
    for key in KEYS:
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise InputError(f"{where}: key {key!r} is {entry[key]!r}; must be a text, not empty")
        try:
            entry[key].encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: key {key!r} holds half of a character ({error}); write it out"
            ) from error
    return entry


def _pair(video_id: str, entry: dict[str, str], path: Path) -> Pair:
    what = [video_id, entry["question"], entry["answer"]]
    return Pair(
        id=fingerprint({"given": what}),
        video_id=video_id,
        granularity=GRANULARITY,
        kind=KIND,
        question=entry["question"],
        chosen=entry["answer"],
        rejected=None,
        negative="none",
        chosen_frames=[],
        rejected_frames=[],
        segment=None,
        generator=path.name,
        sampling={},
        judge="none",
        source=entry["video"],
    )
