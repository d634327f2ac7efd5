"""Videos whose events are known: H.264 files of things moving over a cluttered, moving background.

`write_videos` makes a folder of mp4 files and, elsewhere, one side file with the truth. Only
scoring may read the side file. `draw` is the same picture maker without a file, from which the
lessons of the demo's base model are drawn.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.artefacts import building, write_json
from data_pipelines.errors import InputError
from data_pipelines.json_text import parse_json
from data_pipelines.synthetic_events import COLOURS, MOST_EVENTS, Event, draw_events

SIDE = 112  # pixels along an edge of a frame
FPS = 8
RADIUS = 28
STRIP = 18  # height of ceiling and floor
EVENT_SECONDS = (4.0, 8.0)
RGB = {
    "red": (225, 30, 30),
    "green": (30, 180, 50),
    "blue": (40, 70, 235),
    "yellow": (245, 225, 40),
    "purple": (150, 50, 180),
    "orange": (250, 140, 20),
    "white": (250, 250, 250),
    "cyan": (50, 220, 230),
    "pink": (255, 150, 200),
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An event and when it is on screen, seconds."""

    event: Event
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The background: a muted texture that drifts, and grey clutter that drifts otherwise."""

    texture: np.ndarray
    drift: np.ndarray
    clutter: np.ndarray
    clutter_drift: np.ndarray
    offsets: np.ndarray


def draw_timeline(rng: np.random.Generator, events: Sequence[Event]) -> list[Shown]:
    """The events one after another, each for a random time."""
    ends = np.cumsum(rng.uniform(*EVENT_SECONDS, size=len(events)))
    starts = np.concatenate([[0.0], ends[:-1]])
    return [
        Shown(event=event, start=float(start), end=float(end))
        for event, start, end in zip(events, starts, ends, strict=True)
    ]


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random background."""
    coarse = rng.integers(40, 150, size=(14, 14, 1)) + rng.integers(-18, 19, size=(14, 14, 3))
    texture = Image.fromarray(coarse.astype(np.uint8)).resize(
        (2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC
    )
    return Scene(
        texture=np.asarray(texture),
        drift=rng.uniform(-6, 6, size=2),
        clutter=rng.uniform(0, SIDE, size=(8, 2)),
        clutter_drift=rng.uniform(-9, 9, size=(8, 2)),
        offsets=rng.uniform(-1, 1, size=(32, 2)),
    )


def draw(scene: Scene, timeline: Sequence[Shown], time: float) -> np.ndarray:
    """The frame at `time` seconds, uint8 [SIDE, SIDE, 3]."""
    x, y = (np.abs((scene.drift * time) % (2 * SIDE) - SIDE)).astype(int)
    image = Image.fromarray(scene.texture[y : y + SIDE, x : x + SIDE])
    pen = ImageDraw.Draw(image)
    for number, (start, drift) in enumerate(zip(scene.clutter, scene.clutter_drift, strict=True)):
        x, y = (start + drift * time) % SIDE
        grey = 60 + 12 * number
        pen.rectangle((x, y, x + 3 + number, y + 10 - number), fill=(grey, grey, grey))
    for number, shown in enumerate(timeline):
        if shown.start <= time < shown.end:
            _draw_event(pen, shown, time, scene.offsets[number % len(scene.offsets)])
    return np.asarray(image)


def _draw_event(pen: ImageDraw.ImageDraw, shown: Shown, time: float, offset: np.ndarray) -> None:
    """The thing crosses the picture once while the event lasts, between ceiling and floor."""
    event = shown.event
    along = (time - shown.start) / (shown.end - shown.start)
    travel = along if offset[0] > 0 else 1 - along
    x = RADIUS + (SIDE - 2 * RADIUS) * travel
    y = SIDE / 2 + offset[1] * (SIDE / 2 - STRIP - RADIUS)
    pen.rectangle((0, 0, SIDE, STRIP - 1), fill=RGB[event.ceiling])
    pen.rectangle((0, SIDE - STRIP, SIDE, SIDE), fill=RGB[event.floor])
    radius = RADIUS + 2 * offset[1]
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=RGB[event.colour])


def write_video(path: Path, scene: Scene, timeline: Sequence[Shown]) -> None:
    """Encode one video as H.264 in mp4; the same input gives the same bytes."""
    with av.open(str(path), "w") as container:
        # One thread: x264's output depends on how many there are.
        options = {"preset": "ultrafast", "crf": "20", "threads": "1", "g": "40"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(int(timeline[-1].end * FPS)):
            frame = av.VideoFrame.from_ndarray(draw(scene, timeline, number / FPS), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_videos(
    folder: Path,
    truth: Path,
    *,
    count: int,
    events: tuple[int, int],
    seed: int,
    heldout_things: bool = True,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write `count` videos of `events` (fewest, most) events each, and the truth to a side file.

    Does nothing when both are there already. Different seeds give different videos. Without
    `heldout_things` no video shows a thing of `synthetic_events.HELDOUT_THINGS`.

    Raises:
      InputError: no such number of events, or the files there were made from other settings.
    """
    if not 1 <= events[0] <= events[1] <= MOST_EVENTS:
        raise InputError(f"events {events}: must be (fewest, most) within 1 and {MOST_EVENTS}")
    planned = {}
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        number_of_events = int(rng.integers(events[0], events[1] + 1))
        drawn = draw_events(rng, number_of_events, heldout_things=heldout_things)
        timeline = draw_timeline(rng, drawn)
        planned[f"{folder.name}_{number:04d}.mp4"] = rng, timeline
    told = {name: [asdict(one) for one in timeline] for name, (_, timeline) in planned.items()}
    if folder.exists() and truth.exists():
        if json.loads(truth.read_text()) != told:
            raise InputError(f"{folder}: other videos are there; delete it and {truth}")
        return
    with building(folder) as partial:
        for done, (name, (rng, timeline)) in enumerate(planned.items(), start=1):
            write_video(partial / name, draw_scene(rng), timeline)
            if progress:
                progress(done, count, name)
        truth.parent.mkdir(parents=True, exist_ok=True)
        write_json(truth, told)


def read_truth(truth: Path) -> dict[str, list[Shown]]:
    """File name to what is shown in it. For scoring only. InputError if it is damaged."""
    try:
        told = parse_json(truth.read_text("utf-8"))
        return {name: [_read_shown(one) for one in shown] for name, shown in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{truth}: is no truth of synthetic videos ({type(error).__name__}: {error}); make "
            "it again with `tpo demo`"
        ) from error


def _read_shown(told: dict) -> Shown:
    event, start, end = Event(**told["event"]), told["start"], told["end"]
    if unknown := [one for one in asdict(event).values() if one not in COLOURS]:
        raise ValueError(f"no colour {unknown[0]!r}")
    if not float(start) < float(end):
        raise ValueError(f"from {start} to {end} s")
    return Shown(event=event, start=start, end=end)
