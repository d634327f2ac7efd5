"""A pair as files tell it, whatever the format: a video's name and the texts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from data_pipelines.artefacts import fingerprint
from data_pipelines.errors import InputError
from data_pipelines.pairs import Granularity, Pair
from data_pipelines.video_names import VideoNames

UNKNOWN = "unknown"
# What stands for the video in a prompt: the first in LLaVA's formats, the second in the others.
IMAGE_MARK, VIDEO_MARK = "<image>", "<video>"
MARKS = (IMAGE_MARK, VIDEO_MARK, "<audio>")
KIND = "given"
# Keys that no other project reads: what of ours is kept in their formats.
ORIGIN = ("source", "licence", "generator")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One pair of a file.

    Attributes:
      where: file and line (or number of the row), for messages.
      video: the name of the video's file; of our own pairs the id.
      question: without anything that stands for the video.
      chosen: the preferred answer.
      rejected: None where there is only an answer to learn.
      id: None where the file tells none.
      granularity: None where the file tells none.
      source, licence, generator: "unknown" where the file tells none.
      left_out: what the file tells besides and nobody reads here.
      pair: the pair as ours, where the file is ours or the video was found.
    """

    where: str
    video: str
    question: str
    chosen: str
    rejected: str | None
    id: str | None = None
    granularity: Granularity | None = None
    source: str = UNKNOWN
    licence: str = UNKNOWN
    generator: str = UNKNOWN
    left_out: tuple[str, ...] = ()
    pair: Pair | None = None

    @property
    def video_key(self) -> str:
        """What tells the video apart from others: its id where that is known, else its name."""
        return self.pair.video_id if self.pair else self.video


# ---------------------------------------------------------------------------------------- to ours


def resolve(row: Row, videos: VideoNames) -> Row:
    """The row with its pair: with the id of the video that it names.

    Nobody says which frames the answers of a foreign pair were made from, so the pair tells none.
    Its granularity, when not told, is "comprehensive": training shows the whole video. A row that
    has its pair is returned as it is, if the video is there.

    Raises:
      InputError: the video is not there; names the row.
    """
    if row.pair is not None:
        videos.name_of(row.pair.video_id, row.where)
        return row
    video = videos.find(row.video, row.where)
    texts = [video, row.question, row.chosen, row.rejected]
    pair = Pair(
        id=row.id or fingerprint({"given": texts}),
        video_id=video,
        granularity=row.granularity or "comprehensive",
        kind=KIND,
        question=row.question,
        chosen=row.chosen,
        rejected=row.rejected,
        negative="none",
        chosen_frames=[],
        rejected_frames=[],
        segment=None,
        generator=row.generator,
        sampling={},
        judge="none",
        source=row.source,
        licence=row.licence,
    )
    return replace(row, pair=pair, id=pair.id)


def from_pair(pair: Pair, where: str) -> Row:
    """A pair of ours as a row; its video is told by id."""
    row = Row(
        where=where,
        video=pair.video_id,
        question=pair.question,
        chosen=pair.chosen,
        rejected=pair.rejected,
        id=pair.id,
        granularity=pair.granularity,
        source=pair.source,
        licence=pair.licence,
        generator=pair.generator,
        pair=pair,
    )
    for key in ("question", "chosen"):
        take_text({key: getattr(row, key)}, key, where)
    if row.rejected is not None:
        take_text({"rejected": row.rejected}, "rejected", where)
    return row


# ------------------------------------------------------------------------------------ out of files


def take_text(entry: Mapping[str, Any], key: str, where: str) -> str:
    """A text that must be there. Raises InputError if it is missing, empty or no text."""
    if key not in entry:
        told = ", ".join(map(repr, entry)) or "nothing"
        raise InputError(f"{where}: the row has no {key!r}; it has {told}")
    value = entry[key]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {key!r} is {value!r}; must be a text, not empty")
    return _whole(value, key, where)


def take_video(entry: Mapping[str, Any], where: str, key: str = "video") -> str:
    """The name of the row's one video, told as a text or as a list of one.

    Raises:
      InputError: there is none, or more than one, or frames instead of a file.
    """
    value = entry.get(key)
    if isinstance(value, list):
        if len(value) != 1:
            raise InputError(
                f"{where}: {key!r} names {len(value)} videos; a pair is about one, leave it out"
            )
        (value,) = value
    if isinstance(value, list):
        raise InputError(f"{where}: {key!r} lists frames; the name of a video's file is needed")
    return take_text(entry if key not in entry else {key: value}, key, where)


def take_origin(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a row that any format may carry: id, granularity, source, licence, generator.

    Raises:
      InputError: one is there and is no text (an id may be a whole number too).
    """
    found: dict[str, Any] = {}
    identity = entry.get("id")
    if identity is not None and identity != "":
        number = isinstance(identity, int) and not isinstance(identity, bool)
        found["id"] = str(identity) if number else take_text(entry, "id", where)
    for key in ORIGIN:
        if entry.get(key) not in (None, ""):
            found[key] = take_text(entry, key, where)
    if entry.get("granularity") in get_args(Granularity):
        found["granularity"] = entry["granularity"]
    return found


def left_out(entry: Mapping[str, Any], read: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of an entry that are neither in `read` nor among those that any format carries."""
    known = {*read, "id", *ORIGIN}
    if entry.get("granularity") in (None, *get_args(Granularity)):
        known.add("granularity")
    return tuple(key for key in entry if key not in known)


def without_marks(prompt: str, where: str, at_most: int | None = 1) -> str:
    """A prompt without what stands for the video, and without white space around it.

    Args:
      prompt: with or without `<image>` or `<video>`, anywhere.
      where: file and line, for the message.
      at_most: how many of them are allowed; None for any number.

    Raises:
      InputError: there are more, or nothing else is left.
    """
    count = prompt.count(IMAGE_MARK) + prompt.count(VIDEO_MARK)
    if at_most is not None and count > at_most:
        raise InputError(
            f"{where}: the prompt has {count} places for a video; a pair is about one video"
        )
    question = prompt.replace(IMAGE_MARK, "").replace(VIDEO_MARK, "").strip()
    if not question:
        raise InputError(f"{where}: the prompt {prompt!r} asks nothing; write the question")
    return question


def _whole(text: str, key: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {key!r} holds half of a character ({error}); write it out"
        ) from error
    return text


# -------------------------------------------------------------------------------------- into files


def origin(row: Row) -> dict[str, str]:
    """What of a row its format has no place for, under keys of our own."""
    told = {key: getattr(row, key) for key in ORIGIN}
    return told if row.granularity is None else {"granularity": row.granularity, **told}


def check_marks(row: Row) -> None:
    """Refuses texts that other trainers would take for the place of a video or picture.

    Raises:
      InputError: names the row and the mark.
    """
    for name in ("question", "chosen", "rejected"):
        for mark in MARKS:
            if mark in (getattr(row, name) or ""):
                raise InputError(
                    f"{row.where}: the {name} holds {mark}, which others read as the place of a "
                    "video or picture; reword it or leave the row out"
                )
