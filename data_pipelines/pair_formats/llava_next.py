"""LLaVA-NeXT's `train_dpo.py`, which LongVA and the authors of TPO train with.

    {"id": "1", "video": "a.mp4", "prompt": "<image>\\nWhat ...?", "chosen": "...",
     "rejected": "...", "answer": ""}

The script takes every `<image>` out of the prompt, strips it, and puts one at the beginning. It
wants "answer" when it groups by length, though it trains on nothing of it.
"""

from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.pair_formats import row as rows
from data_pipelines.pair_formats.row import Row

READ = ("video", "prompt", "chosen", "rejected", "answer")


def fits(entry: dict[str, Any]) -> bool:
    """Whether an entry looks like this format."""
    return isinstance(entry.get("prompt"), str)


def read(entry: dict[str, Any], where: str) -> Row:
    """One entry. Raises InputError."""
    if "image" in entry:
        raise InputError(f"{where}: is about a picture ('image'); only videos are read")
    return Row(
        where=where,
        video=rows.take_video(entry, where),
        question=rows.without_marks(rows.take_text(entry, "prompt", where), where, at_most=None),
        chosen=rows.take_text(entry, "chosen", where),
        rejected=rows.take_text(entry, "rejected", where),
        left_out=rows.left_out(entry, READ),
        **rows.take_origin(entry, where),
    )


def write(row: Row) -> dict[str, Any]:
    """One entry. Raises InputError if the pair has no rejected answer."""
    if row.rejected is None:
        raise InputError(
            f"{row.where}: the pair has no rejected answer, which train_dpo needs; leave it out, "
            "or write ms_swift, which has rows for SFT"
        )
    rows.check_marks(row)
    return {
        "id": row.id,
        "video": row.video,
        "prompt": f"{rows.IMAGE_MARK}\n{row.question}",
        "chosen": row.chosen,
        "rejected": row.rejected,
        "answer": "",
        **rows.origin(row),
    }
