"""TRL's conversational form with the prompt apart.

    {"prompt": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "..."}]}],
     "chosen": [{"role": "assistant", "content": "..."}],
     "rejected": [{"role": "assistant", "content": "..."}], "video": "a.mp4"}

TRL itself trains on pictures only, so where a video is named is not settled: in "video", in
"videos", or in the content's part. A row with "completion" instead of chosen and rejected is one
for SFT.
"""

from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.pair_formats import row as rows
from data_pipelines.pair_formats.row import Row
from data_pipelines.pair_formats.turns import read_answer, read_exchange, read_turns

READ = ("prompt", "chosen", "rejected", "completion", "video", "videos")


def fits(entry: dict[str, Any]) -> bool:
    """Whether an entry looks like this format."""
    return isinstance(entry.get("prompt"), list)


def read(entry: dict[str, Any], where: str) -> Row:
    """One entry. Raises InputError."""
    if entry.get("images") or entry.get("image"):
        raise InputError(f"{where}: is about pictures; only videos are read")
    exchange = read_exchange(read_turns(entry.get("prompt"), where, "prompt"), where)
    if exchange.answer is not None:
        raise InputError(f"{where}: 'prompt' ends with an answer; it must end with the question")
    plain = "completion" in entry and not {"chosen", "rejected"} & entry.keys()
    return Row(
        where=where,
        video=_video(entry, exchange.videos, where),
        question=exchange.question,
        chosen=_answer(entry, "completion" if plain else "chosen", where),
        rejected=None if plain else _answer(entry, "rejected", where),
        left_out=exchange.left_out + rows.left_out(entry, READ),
        **rows.take_origin(entry, where),
    )


def _answer(entry: dict[str, Any], key: str, where: str) -> str:
    if key not in entry:
        raise InputError(f"{where}: the row has no {key!r}; it has {', '.join(map(repr, entry))}")
    return read_answer(read_turns(entry[key], where, key), where, key)


def _video(entry: dict[str, Any], told: tuple[str, ...], where: str) -> str:
    for key in ("video", "videos"):
        if entry.get(key):
            return rows.take_video(entry, where, key)
    return rows.take_video({"video": list(told)} if told else entry, where)
