"""From the name of a video's file, which is all that other formats tell, to its id, and back."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from data_pipelines.artefacts import MANIFEST_NAME
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.video import video_id
from data_pipelines.video_files import find_videos


class VideoNames:
    """The videos of a frame store, or of a folder, by name.

    A name is the path within the folder that holds all videos. A folder's files are hashed when
    they are asked for, since that reads all of their bytes.
    """

    def __init__(self, place: Path, known: Mapping[str, str | Path]):
        """Use `from_store`, `from_folder` or `open_videos`.

        Args:
          place: where the videos are, for messages.
          known: each name's id, or the file whose id it is.
        """
        self.place = place
        self._known = dict(known)
        self._named: dict[str, str] = {}

    @classmethod
    def from_store(cls, store: FrameStore) -> "VideoNames":
        """The names that the store's manifest holds; no file is read."""
        known = {name: video for video in store.videos for name in store.info(video).names}
        return cls(store.path, known)

    @classmethod
    def from_folder(cls, folder: Path) -> "VideoNames":
        """Every video under a folder. Raises InputError if there is none."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give the folder that holds the videos")
        return cls(folder, {p.relative_to(folder).as_posix(): p for p in find_videos(folder)})

    def find(self, name: str, where: str, what: str = "the video") -> str:
        """Returns the id of a video.

        A path that begins elsewhere is found by its end: "/data/videos/a/b.mp4" is "a/b.mp4" here,
        or else "b.mp4".

        Args:
          name: as the row tells it.
          where: file and line, for the message.
          what: how the message names what the row tells.

        Raises:
          InputError: there is no such video; says `where`, and which name is nearest.
        """
        for end in _ends(name):
            if end in self._known:
                return self._id(end)
        raise InputError(
            f"{where}: {what} is {name!r}, which is not among the {len(set(self._known.values()))} "
            f"videos of {self.place}; {self._mend(name)}"
        )

    def name_of(self, video: str, where: str) -> str:
        """Returns a name of the video with this id: the first that was asked for, else by alphabet.

        Raises:
          InputError: no file has this id; says `where`.
        """
        if video not in self._named:
            for name in sorted(self._known):
                self._id(name)
        if video not in self._named:
            raise InputError(
                f"{where}: no file of {self.place} has the video id {video!r}; are the pairs about "
                "other videos?"
            )
        return self._named[video]

    def _id(self, name: str) -> str:
        found = self._known[name]
        if isinstance(found, Path):
            found = self._known[name] = video_id(found)
        self._named.setdefault(found, name)
        return found

    def _mend(self, name: str) -> str:
        (nearest,) = difflib.get_close_matches(name, self._known, n=1, cutoff=0.0)
        return f"did you mean {nearest!r}? (a name is the path within the folder of videos)"


def open_videos(place: Path) -> VideoNames:
    """The videos of a frame store, or of any other folder. InputError if there are none."""
    if (place / MANIFEST_NAME).exists():
        return VideoNames.from_store(FrameStore.open(place))
    return VideoNames.from_folder(place)


def _ends(name: str) -> Iterator[str]:
    """The path, then what is left of it without its first folder, without the first two, ..."""
    yield name
    parts = PurePosixPath(name.replace("\\", "/")).parts
    for first in range(len(parts)):
        yield "/".join(parts[first:])
