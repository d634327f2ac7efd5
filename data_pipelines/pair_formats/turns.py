"""Conversations, as most formats tell a pair: turns of a role and a content."""

from dataclasses import dataclass
from typing import Any

from data_pipelines.errors import InputError
from data_pipelines.pair_formats.row import take_text, without_marks

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
SYSTEM_TURN = "a system turn"
# Where a part of a content may name its video's file.
VIDEO_KEYS = ("video", "path", "url")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn: who says it ("system", "user" or "assistant"), the text, and the videos shown."""

    role: str
    text: str
    videos: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One question and, where the conversation goes on to it, its answer.

    Attributes:
      question: without what stands for the video.
      answer: None where the conversation ends with the question.
      videos: names told within the question.
      left_out: SYSTEM_TURN if there was one; training has the prompt's own.
    """

    question: str
    answer: str | None
    videos: tuple[str, ...]
    left_out: tuple[str, ...]


def read_turns(
    value: Any, where: str, key: str, role_key: str = "role", text_key: str = "content"
) -> list[Turn]:
    """The turns of a list of objects. Raises InputError naming what is wrong with which turn."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key!r} is no list of turns")
    return [
        read_turn(one, f"{where}: turn {number} of {key!r}", role_key, text_key)
        for number, one in enumerate(value, 1)
    ]


def read_turn(value: Any, where: str, role_key: str = "role", text_key: str = "content") -> Turn:
    """One turn; its content is a text, or a list of parts of type "text" and "video"."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: is no object with {role_key!r} and {text_key!r}")
    role = take_text(value, role_key, where)
    if role not in ROLES:
        raise InputError(f"{where}: the role {role!r} is none of {', '.join(ROLES)}")
    parts = value.get(text_key)
    if not isinstance(parts, list):
        return Turn(role=ROLES[role], text=take_text(value, text_key, where))
    texts, videos = [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(take_text(part, "text", where))
        elif kind == "video":
            named = [part[one] for one in VIDEO_KEYS if isinstance(part.get(one), str)]
            videos.extend(named[:1])
        else:
            raise InputError(f"{where}: a part of type {kind!r}; only text and video are read")
    text = take_text({text_key: "".join(texts)}, text_key, where)
    return Turn(role=ROLES[role], text=text, videos=tuple(videos))


def read_exchange(turns: list[Turn], where: str) -> Exchange:
    """The one question of a conversation, and its answer if there is one.

    Raises:
      InputError: there is more or less than that in it.
    """
    has_system = turns[0].role == "system"
    said = turns[1:] if has_system else turns
    roles = [turn.role for turn in said]
    if roles not in (["user"], ["user", "assistant"]):
        raise InputError(
            f"{where}: the turns are {', '.join(roles) or 'none'}; a pair is one question of the "
            "user and its answers"
        )
    return Exchange(
        question=without_marks(said[0].text, where),
        answer=said[1].text if len(said) == 2 else None,
        videos=said[0].videos,
        left_out=(SYSTEM_TURN,) if has_system else (),
    )


def read_answer(turns: list[Turn], where: str, key: str) -> str:
    """The one turn of the assistant that an answer is. Raises InputError if it is another."""
    if [turn.role for turn in turns] != ["assistant"]:
        roles = ", ".join(turn.role for turn in turns)
        raise InputError(f"{where}: {key!r} has turns of {roles}; must be one of the assistant")
    return turns[0].text
