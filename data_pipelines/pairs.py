"""The preference pair: its fields, and its file of JSON lines."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from data_pipelines.artefacts import write_text
from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json
from data_pipelines.sampling import uniform

Granularity = Literal["localized", "comprehensive"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One preference pair.

    `chosen_frames` and `rejected_frames` are positions among the video's stored frames that each
    answer was made from; `segment` is in seconds. Training shows the same frames for both answers,
    whatever these are. `rejected` is None where there is only an answer to learn: plain question
    and answer, for a run without a loss on pairs. `made_with` tells what else the pair was made
    with: how the rejected side's frames were taken, the seed, who wrote the chosen answer, what the
    judge read (docs/formats.md).
    """

    id: str
    video_id: str
    granularity: Granularity
    kind: str
    question: str
    chosen: str
    rejected: str | None
    negative: str
    chosen_frames: list[int]
    rejected_frames: list[int]
    segment: list[float] | None
    generator: str
    sampling: dict[str, Any]
    judge: str
    judge_said: dict[str, Any] = field(default_factory=dict)
    made_with: dict[str, Any] = field(default_factory=dict)
    round: int = 0
    source: str = "unknown"
    licence: str = "unknown"


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write JSON lines, atomically."""
    lines = [json.dumps(asdict(pair), ensure_ascii=False) for pair in pairs]
    write_text(path, "".join(line + "\n" for line in lines))


def read_pairs(path: Path) -> list[Pair]:
    """Read JSON lines.

    Raises:
      InputError: no or an empty file, a line that is no pair, or two pairs of one id; names the
        line and the field.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; `tpo curate` makes it")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); make the pairs again") from error
    if not text:
        raise InputError(f"{path}: is empty; delete its folder and run `tpo curate` again")
    known = {f.name for f in fields(Pair)}
    needed = {f.name for f in fields(Pair) if f.default is MISSING and f.default_factory is MISSING}
    pairs = []
    lines: dict[str, int] = {}
    # Not splitlines: a text may hold U+2028 and its like, which JSON leaves as they are.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(entry, dict):
            raise InputError(f"{path}:{number}: not a JSON object, so not a pair")
        for name in sorted(needed - entry.keys()):
            raise InputError(f"{path}:{number}: the pair has no field {name!r}")
        for name in sorted(entry.keys() - known):
            raise InputError(f"{path}:{number}: the pair has an unknown field {name!r}")
        _check_values(entry, f"{path}:{number}")
        pair = Pair(**entry)
        # The reference table is joined by id.
        if lines.setdefault(pair.id, number) != number:
            raise InputError(
                f"{path}:{number}: the pair has the id {pair.id!r}, as the pair of line "
                f"{lines[pair.id]}; give it another"
            )
        pairs.append(pair)
    return pairs


def _check_values(entry: dict[str, Any], where: str) -> None:
    """Raises InputError for the first field whose value a pair cannot have."""
    for name, (fits, expected) in _VALUES.items():
        if name in entry and not fits(entry[name]):
            raise InputError(f"{where}: {name!r} is {entry[name]!r:.60}; must be {expected}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= mark <= "\udfff" for mark in value)


def _is_positions(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _is_segment(value: Any) -> bool:
    if value is None:
        return True
    numbers = isinstance(value, list) and all(type(one) in (int, float) for one in value)
    return numbers and len(value) == 2 and all(map(math.isfinite, value))


_TEXTS = ("id", "video_id", "kind", "question", "chosen", "negative", "generator", "judge")
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys((*_TEXTS, "source", "licence"), (_is_text, "a text")),
    "rejected": (lambda value: value is None or _is_text(value), "a text or null"),
    "granularity": (
        lambda value: value in get_args(Granularity),
        f"one of {', '.join(get_args(Granularity))}",
    ),
    **dict.fromkeys(("chosen_frames", "rejected_frames"), (_is_positions, "a list of frames")),
    "segment": (_is_segment, "null or [start, end] in seconds"),
    **{
        name: (lambda value: isinstance(value, dict), "an object")
        for name in ("sampling", "judge_said", "made_with")
    },
    "round": (lambda value: type(value) is int, "a whole number"),
}


def train_frames(stored: int, count: int) -> np.ndarray:
    """Positions shown in training: `count` uniform over the WHOLE video, for both answers."""
    return uniform(stored, count)
