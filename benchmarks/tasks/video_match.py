"""Which of the videos that are there an item is about: published names and file names differ."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from benchmarks.tasks.item import Item
from data_pipelines.errors import InputError

SHOWN = 3  # missing videos that a message names


def match_videos(
    items: Sequence[Item], names: Iterable[str], place: str, *, leave_out: bool = False
) -> dict[str, str]:
    """Finds every item's video.

    "data/x.mp4" is the name itself, or the longest end of it that is there, under any suffix: then
    x.MP4 and x.mkv will do too, as they do in the field's harness.

    Args:
      items: of a task.
      names: of the videos that are there: paths within the folder, as a FrameStore keeps them.
      place: what holds them, for the message.
      leave_out: skip missing videos, whose items are then not in the result, instead of failing.

    Returns:
      an item's `video` -> one of `names`.

    Raises:
      InputError: videos are missing, or two of `names` fit one item equally well.
    """
    by_stem: dict[str, list[str]] = {}
    for name in names:
        for end in _ends(_stem(name)):
            by_stem.setdefault(end, []).append(name)
    found, missing = {}, []
    for video in dict.fromkeys(item.video for item in items):
        fits = next((by_stem[end] for end in _ends(_stem(video)) if end in by_stem), [])
        exact = [name for name in fits if name == video or name.endswith(f"/{video}")]
        fits = exact if len(exact) == 1 else fits
        if len(fits) > 1:
            raise InputError(
                f"{place}: {video} may be {fits[0]} or {fits[1]}; leave only one there"
            )
        if fits:
            found[video] = fits[0]
        else:
            missing.append(video)
    if missing and not leave_out:
        more = ", ..." if len(missing) > SHOWN else ""
        raise InputError(
            f"{place}: {len(missing)} of {len(found) + len(missing)} videos are not there: "
            f"{', '.join(missing[:SHOWN])}{more}; fetch them or point at the folder that has them"
        )
    return found


def _stem(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    # A folder of frames has no suffix, but its name may hold a dot; a suffix is short.
    return str(path.with_suffix("")) if 1 < len(path.suffix) <= 5 else str(path)


def _ends(stem: str) -> list[str]:
    """The path, then what is left of it without its first folder, and so on."""
    parts = PurePosixPath(stem).parts
    return ["/".join(parts[first:]) for first in range(len(parts))]
