"""The per-video work of a FrameStore on Apache Beam, for when one machine is not enough.

Workers and this process meet in a folder that all of them reach: a shared disk, or a bucket. A
worker leaves there what it stored of a video, and what came of it. Beam is imported where it is
used: it is an extra.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from etils import epath

from data_pipelines.artefacts import in_bucket, names_in
from data_pipelines.errors import InputError
from data_pipelines.processes import Undone, run_all
from data_pipelines.stored_video import Outcome, note_name, shard_name
from data_pipelines.video_files import VideoPath

POLL_SECONDS = 1.0
OUTCOMES = "outcomes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """Where the work goes.

    Attributes:
      flags: for Beam, such as "--runner=FlinkRunner"; none of them is read here.
      exchange: a folder that all workers and this process reach, in a bucket or on a shared disk.
        None: the store's own unfinished folder, which then must be on a shared disk.
    """

    flags: tuple[str, ...] = ()
    exchange: str | None = None


Store = Callable[..., Outcome]  # store_video, with all but `path`, `work` and `done` given


def run_on_beam(
    store: Store,
    paths: Sequence[VideoPath],
    work: Path,
    config: BeamConfig,
    *,
    made_from: str,
    seconds: float | None = None,
) -> Generator[tuple[VideoPath, Outcome | Undone], None, None]:
    """Yields every path and what came of it, as it comes; what was stored is in `work` by then.

    Args:
      store: picklable; called with a path, `work` and `done` on some worker.
      paths: videos that workers can read.
      work: local folder.
      config: of Beam.
      made_from: tells apart what other settings left in the exchange folder.
      seconds: that a video may take.

    Raises:
      InputError: Beam is not installed, or the pipeline failed. Run again, it goes on.
    """
    beam = _import_beam()
    place = work if config.exchange is None else epath.Path(config.exchange) / made_from
    told = epath.Path(place) / OUTCOMES
    if told.exists():
        told.rmtree()  # what a killed run told; what it stored stays
    told.mkdir(parents=True, exist_ok=True)
    function = functools.partial(store_apart, store=store, place=os.fspath(place), seconds=seconds)

    def run() -> None:
        options = beam.options.pipeline_options.PipelineOptions(list(config.flags))
        with beam.Pipeline(options=options) as pipeline:
            videos = pipeline | beam.Create([os.fspath(path) for path in paths])
            _ = videos | beam.Reshuffle() | beam.Map(function)

    waiting = {outcome_name(path): path for path in paths}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        while waiting and not running.done():
            wait([running], timeout=POLL_SECONDS)
            for name in sorted(names_in(told) & waiting.keys()):
                yield _fetch(waiting.pop(name), told / name, work, place)
    _check(running, work)
    for path in waiting.values():
        name = told / outcome_name(path)
        if name.exists():
            yield _fetch(path, name, work, place)
        else:
            yield path, Undone("no worker told what came of it")
    if config.exchange is not None:
        epath.Path(place).rmtree()


def _import_beam():  # type: ignore[no-untyped-def]
    try:
        import apache_beam as beam
        import apache_beam.options.pipeline_options
    except ImportError as error:
        raise InputError("apache_beam is not installed: pip install 'tpo_jax[beam]'") from error
    return beam


def _check(running: Future[None], work: Path) -> None:
    try:
        running.result()
    except Exception as error:  # whatever the runner raises, it is the pipeline that failed
        told = " ".join(str(error).split())[:300]
        raise InputError(
            f"{work.parent}: the Beam pipeline failed, run again to go on with what is missing: "
            f"{type(error).__name__}: {told}"
        ) from error


def _fetch(
    path: VideoPath, told: epath.Path, work: Path, place: os.PathLike[str]
) -> tuple[VideoPath, Outcome]:
    """What came of a video; its files are brought to `work`."""
    outcome = Outcome(**json.loads(told.read_text()) | {"path": path})
    if outcome.reason is None and os.fspath(place) != os.fspath(work):
        assert outcome.video_id is not None
        # The note is last: it says that the shard is whole.
        for name in (shard_name(outcome.video_id), note_name(outcome.video_id)):
            if not (work / name).exists():
                _put(epath.Path(place) / name, epath.Path(work), name)
    return path, outcome


def store_apart(path: str, store: Store, place: str, seconds: float | None) -> None:
    """What a worker does: store a video in a folder of its own, then leave it in `place`."""
    from data_pipelines.video_files import as_path

    video, shared = as_path(path), epath.Path(place)
    with tempfile.TemporaryDirectory() as own:
        one = functools.partial(store, work=Path(own), done=as_path(place))
        ((_, result),) = run_all(one, [video], 1, seconds=seconds)
        if isinstance(result, Undone):
            result = Outcome(video, None, result.reason)
        elif result.video_id is not None and result.reason is None:
            for name in (shard_name(result.video_id), note_name(result.video_id)):
                if (Path(own) / name).exists():  # else it was there before
                    _put(epath.Path(own) / name, shared, name)
        outcome = Path(own) / outcome_name(video)
        outcome.write_text(json.dumps(result._asdict() | {"path": path}))
        _put(epath.Path(outcome), shared / OUTCOMES, outcome.name)


def outcome_name(path: VideoPath) -> str:
    """The file in which a worker tells what came of a video."""
    return f"{hashlib.sha256(os.fsencode(os.fspath(path))).hexdigest()}.json"


def _put(source: epath.Path, folder: epath.Path, name: str) -> None:
    """Copies a file under its name at once: whoever sees it sees all of it."""
    if in_bucket(folder):
        source.copy(folder / name, overwrite=True)  # an object appears when it is whole
        return
    # Two workers may be at the same video: Beam gives work out twice where a worker is slow.
    temporary = Path(folder) / f"{name}.{uuid.uuid4().hex}.tmp"
    if in_bucket(source):
        source.copy(temporary)
    else:
        shutil.copyfile(source, temporary)
    os.replace(temporary, Path(folder) / name)
