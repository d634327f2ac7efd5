"""ms-swift, with messages.

    {"messages": [{"role": "user", "content": "<video>What ...?"},
                  {"role": "assistant", "content": "the chosen answer"}],
     "rejected_response": "...", "videos": ["a.mp4"]}

A row without "rejected_response" is one for SFT. "rejected_messages" may stand in its place.
"""

from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.pair_formats import row as rows
from data_pipelines.pair_formats.row import Row
from data_pipelines.pair_formats.turns import read_exchange, read_turns

READ = ("messages", "videos", "rejected_response", "rejected_messages", "rejected_videos")


def fits(entry: dict[str, Any]) -> bool:
    """Whether an entry looks like this format."""
    return "messages" in entry and not {"chosen", "rejected"} & entry.keys()


def read(entry: dict[str, Any], where: str) -> Row:
    """One entry. Raises InputError."""
    if entry.get("images"):
        raise InputError(f"{where}: is about pictures ('images'); only videos are read")
    exchange = read_exchange(read_turns(entry.get("messages"), where, "messages"), where)
    if exchange.answer is None:
        raise InputError(f"{where}: 'messages' ends without an answer of the assistant")
    if entry.get("rejected_videos") not in (None, [], entry.get("videos")):
        raise InputError(
            f"{where}: 'rejected_videos' differs from 'videos'; here both answers are learned on "
            "one video"
        )
    videos = entry if "videos" in entry or not exchange.videos else {"videos": [*exchange.videos]}
    return Row(
        where=where,
        video=rows.take_video(videos, where, "videos"),
        question=exchange.question,
        chosen=exchange.answer,
        rejected=_rejected(entry, exchange.question, where),
        left_out=exchange.left_out + rows.left_out(entry, READ),
        **rows.take_origin(entry, where),
    )


def write(row: Row) -> dict[str, Any]:
    """One entry; without a rejected answer it is one for SFT."""
    rows.check_marks(row)
    entry: dict[str, Any] = {
        "id": row.id,
        "messages": [
            {"role": "user", "content": f"{rows.VIDEO_MARK}{row.question}"},
            {"role": "assistant", "content": row.chosen},
        ],
        "rejected_response": row.rejected,
        "videos": [row.video],
        **rows.origin(row),
    }
    if row.rejected is None:
        del entry["rejected_response"]
    return entry


def _rejected(entry: dict[str, Any], question: str, where: str) -> str | None:
    if entry.get("rejected_response") is not None:
        return rows.take_text(entry, "rejected_response", where)
    if entry.get("rejected_messages") is None:
        return None
    turns = read_turns(entry["rejected_messages"], where, "rejected_messages")
    exchange = read_exchange(turns, where)
    if exchange.answer is None or exchange.question != question:
        raise InputError(f"{where}: 'rejected_messages' must answer the question of 'messages'")
    return exchange.answer
