"""LLaMA-Factory's ShareGPT form of a ranking (`"formatting": "sharegpt", "ranking": true`).

    {"conversations": [{"from": "human", "value": "<video>What ...?"}],
     "chosen": {"from": "gpt", "value": "..."}, "rejected": {"from": "gpt", "value": "..."},
     "videos": ["a.mp4"]}

A row whose conversation ends with the answer, without chosen and rejected, is one for SFT.
"""

from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.pair_formats import row as rows
from data_pipelines.pair_formats.row import Row
from data_pipelines.pair_formats.turns import read_answer, read_exchange, read_turn, read_turns

READ = ("conversations", "chosen", "rejected", "videos")


def fits(entry: dict[str, Any]) -> bool:
    """Whether an entry looks like this format."""
    return "conversations" in entry


def read(entry: dict[str, Any], where: str) -> Row:
    """One entry. Raises InputError."""
    if entry.get("images"):
        raise InputError(f"{where}: is about pictures ('images'); only videos are read")
    turns = read_turns(entry.get("conversations"), where, "conversations", "from", "value")
    exchange = read_exchange(turns, where)
    rejected = None
    if exchange.answer is None:
        chosen, rejected = (_answer(entry, key, where) for key in ("chosen", "rejected"))
    elif {"chosen", "rejected"} & entry.keys():
        raise InputError(f"{where}: 'conversations' has an answer beside 'chosen' and 'rejected'")
    else:
        chosen = exchange.answer
    return Row(
        where=where,
        video=rows.take_video(entry, where, "videos"),
        question=exchange.question,
        chosen=chosen,
        rejected=rejected,
        left_out=exchange.left_out + rows.left_out(entry, READ),
        **rows.take_origin(entry, where),
    )


def _answer(entry: dict[str, Any], key: str, where: str) -> str:
    if key not in entry:
        raise InputError(f"{where}: the row has no {key!r}; it has {', '.join(map(repr, entry))}")
    return read_answer([read_turn(entry[key], f"{where}: {key!r}", "from", "value")], where, key)
