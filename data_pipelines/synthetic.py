"""Videos whose events are known: H.264 files of shapes moving over a cluttered, moving background.

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
from data_pipelines.synthetic_events import COLOURS, COUNTS, MOTIONS, SHAPES, Event

SIDE = 112  # pixels along an edge of a frame
FPS = 8
RADIUS = 15
EVENT_SECONDS = (5.0, 10.0)
RGB = {
    "red": (225, 30, 30),
    "green": (30, 180, 50),
    "blue": (40, 70, 235),
    "yellow": (245, 225, 40),
    "purple": (150, 50, 180),
    "orange": (250, 140, 20),
    "white": (250, 250, 250),
    "cyan": (50, 220, 230),
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


def draw_events(rng: np.random.Generator, count: int) -> list[Event]:
    """`count` events at random, no colour twice (so that a colour names its event)."""
    return [
        Event(
            shape=str(rng.choice(SHAPES)),
            colour=str(colour),
            motion=str(rng.choice(MOTIONS)),
            count=str(rng.choice(COUNTS)),
        )
        for colour in rng.permutation(COLOURS)[:count]
    ]


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
    """Objects abreast, crossing the picture once while the event lasts."""
    event = shown.event
    along = (time - shown.start) / (shown.end - shown.start)
    travel = 20 + (SIDE - 40) * (along if event.motion in ("right", "down") else 1 - along)
    abreast = COUNTS.index(event.count) + 1
    for number in range(abreast):
        across = SIDE / 2 + (number - (abreast - 1) / 2) * 2.3 * RADIUS
        across += offset[0] * (18 if abreast == 1 else 4)
        sideways = event.motion in ("left", "right")
        centre = (travel, across) if sideways else (across, travel)
        _draw_shape(pen, event.shape, centre, RADIUS + 1.5 * offset[1], RGB[event.colour])


def _draw_shape(
    pen: ImageDraw.ImageDraw,
    shape: str,
    centre: tuple[float, float],
    radius: float,
    colour: tuple[int, int, int],
) -> None:
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    match shape:
        case "square":
            side = radius * 0.9
            pen.rectangle((x - side, y - side, x + side, y + side), fill=colour)
        case "ring":
            pen.ellipse(box, outline=colour, width=5)
        case "cross":
            thin = radius / 3
            pen.rectangle((x - radius, y - thin, x + radius, y + thin), fill=colour)
            pen.rectangle((x - thin, y - radius, x + thin, y + radius), fill=colour)
        case _:
            raise ValueError(f"no shape {shape!r}; known: {SHAPES}")


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
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write `count` videos of `events` (fewest, most) events each, and the truth to a side file.

    Does nothing when both are there already. Different seeds give different videos.

    Raises:
      InputError: no such number of events, or the files there were made from other settings.
    """
    if not 1 <= events[0] <= events[1] <= len(COLOURS):
        raise InputError(f"events {events}: must be (fewest, most) within 1 and {len(COLOURS)}")
    planned = {}
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        timeline = draw_timeline(rng, draw_events(rng, int(rng.integers(events[0], events[1] + 1))))
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
    """File name to what is shown in it. For scoring only."""
    told = json.loads(truth.read_text())
    return {
        name: [Shown(event=Event(**s["event"]), start=s["start"], end=s["end"]) for s in shown]
        for name, shown in told.items()
    }
