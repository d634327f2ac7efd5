"""The demo's experiment: every arm trained, asked, and compared. Arms are in `arms.py`.

A `View` is a way of asking: so many frames, or the segment alone, or something taken away. What the
models of all arms said in a view is one artefact, RUN_DIR/eval/SPLIT/VIEW, a file a model.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from benchmarks.counterfactual import can_be_asked, positions_seen, segment_positions
from benchmarks.record_file import append_lines
from benchmarks.runner import Record, read_records, run_task
from benchmarks.tasks.item import Item
from benchmarks.tasks.synthetic import questions
from data_pipelines.artefacts import file_sha256, read_manifest, write_manifest
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.lessons import MAX_FRAMES
from data_pipelines.pairs import train_frames
from data_pipelines.synthetic import Shown, read_truth
from data_pipelines.synthetic_events import ALL_WORDINGS, SEEN_WORDINGS
from tpo_jax.api import LoadedModel, load
from tpo_jax.cli.answering import make_examiner
from tpo_jax.cli.arms import arm_settings, find_arm, train_arm
from tpo_jax.cli.export import load_policy
from tpo_jax.cli.frames import store_videos
from tpo_jax.cli.hosts import building_together
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, as_json, is_done
from tpo_jax.parallel.distributed import first_host_first, is_first_host, wait_for_all

BASE = "base"
Split = Literal["development", "heldout"]


@dataclass(frozen=True, kw_only=True)
class View:
    """A way of asking.

    Attributes:
      name: of the artefact.
      frames: how many are shown, uniform over the video; None for the config's number.
      taken: what is taken away, a name of `benchmarks.counterfactual.VIEWS`; "" for nothing.
      gold: the frames of the segment are shown and no others, as many as in a lesson.
    """

    name: str
    frames: int | None = None
    taken: str = ""
    gold: bool = False

    def asks(self, item: Item) -> bool:
        """Whether the item can be asked so."""
        if self.gold:
            return item.segment is not None
        return not self.taken or can_be_asked(item, self.taken)


WHOLE, GOLD = View(name="whole"), View(name="gold", gold=True)
TAKEN = {name: View(name=name, taken=name) for name in ("removed", "shuffled", "blind")}


def frames_view(frames: int) -> View:
    """All questions, with another number of frames."""
    return View(name=f"frames_{frames}", frames=frames)


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What is asked of every model: the questions of a split, its frames and its truth."""

    split: Split
    items: list[Item]
    truth: dict[str, list[Shown]]
    store: FrameStore
    made_from: dict[str, Any]

    def duration(self, video: str) -> float:
        """Of a video, seconds."""
        return self.truth[video][-1].end


def open_exam(settings: RunConfig, split: Split) -> Exam:
    """The questions about a split's videos.

    Held-out videos are asked about in every wording, others in those of the training pairs.

    Raises:
      InputError: there are no such videos, or no truth.
    """
    root = Path(settings.run_dir)
    videos, truth = root / "videos" / split, root / "truth" / f"{split}.json"
    if not truth.exists():
        raise InputError(f"{truth}: not found; `tpo demo` makes it with the videos")
    with first_host_first(f"frames of {split}"):
        store = store_videos(settings, str(videos), root / "frames_of" / split)
    told = read_truth(truth)
    items = questions(
        told,
        seed=settings.eval.seed,
        localized_per_video=settings.eval.localized_per_video,
        comprehensive_per_video=settings.eval.comprehensive_per_video,
        wordings=ALL_WORDINGS if split == "heldout" else SEEN_WORDINGS,
    )
    made_from = {
        "frames": store.fingerprint,
        "truth": file_sha256(truth)[:16],
        "eval": {k: v for k, v in as_json(settings.eval).items() if k not in ("videos", "truth")},
        "prompts": as_json(settings.prompts),
        "sampling": as_json(settings.sampling),
        "compute_dtype": settings.compute_dtype,
    }
    return Exam(split=split, items=items, truth=told, store=store, made_from=made_from)


def is_experiment(settings: RunConfig) -> bool:
    """Whether the run folder is one of `tpo demo`, which trains arms and not one model."""
    return (Path(settings.run_dir) / "arms").exists()


def train_arms(settings: RunConfig, names: Sequence[str] | None = None) -> None:
    """Train every arm with every seed; what is done is not done again."""
    for name in names or settings.arms.names:
        find_arm(name)
    for seed in range(settings.arms.seeds):
        for name in names or settings.arms.names:
            # A line and no bar: reference and training have bars of their own.
            print(f"arm {name}, seed {seed}", file=sys.stderr)
            train_arm(settings, name, seed)


def models_of(settings: RunConfig, arm: str) -> dict[str, RunConfig]:
    """The models of an arm by label, one a seed (the base has one), each with its run's config."""
    if arm == BASE:
        return {BASE: settings}
    return {
        f"{arm}_{seed}": arm_settings(settings, arm, seed) for seed in range(settings.arms.seeds)
    }


def ask_arms(settings: RunConfig, exam: Exam, view: View, arms: Sequence[str]) -> None:
    """Ask the models of these arms in a view. What is recorded is not asked again."""
    items = [item for item in exam.items if view.asks(item)]
    out = answers_folder(settings, exam.split, view)
    for arm in arms:
        for label, own in models_of(settings, arm).items():
            folder = out / label
            model = load(settings.checkpoint) if arm == BASE else load_policy(own)
            made_from = exam.made_from | {"view": as_json(view), "model": model.fingerprint}
            if is_done(folder, "eval", made_from):
                continue
            with building_together(folder, made_from) as partial:
                _ask(settings, exam, view, label, model, items, partial / "answers.jsonl")
                if is_first_host():
                    write_manifest(partial, "eval", made_from, items=len(items))


def needle_folder(settings: RunConfig, arm: str) -> Path:
    """Where the needle map of an arm's first model is."""
    return settings.folder("eval") / "needle" / arm


def answers_folder(settings: RunConfig, split: str, view: View) -> Path:
    """Where the answers of all models in a view are."""
    return settings.folder("eval") / split / view.name


def read_answers(
    settings: RunConfig, exam: Exam, view: View, arms: Sequence[str]
) -> tuple[list[Item], dict[str, list[list[Record]]]]:
    """The items of a view, and what the models of each arm said; arms not asked are left out."""
    items = [item for item in exam.items if view.asks(item)]
    answers = {}
    for arm in arms:
        folders = [
            answers_folder(settings, exam.split, view) / label for label in models_of(settings, arm)
        ]
        if all(folder.exists() for folder in folders):
            answers[arm] = [_records_of(folder, items) for folder in folders]
    return items, answers


def _records_of(folder: Path, items: Sequence[Item]) -> list[Record]:
    read_manifest(folder, "eval")
    by_id = {record.item: record for record in read_records(folder / "answers.jsonl")}
    return [by_id[item.id] for item in items]


def _ask(
    settings: RunConfig,
    exam: Exam,
    view: View,
    label: str,
    model: LoadedModel,
    items: Sequence[Item],
    record: Path,
) -> None:
    def positions_of(item: Item, times_F: np.ndarray) -> np.ndarray:
        if view.gold:
            return segment_positions(item, times_F, MAX_FRAMES)
        positions = train_frames(len(times_F), view.frames or settings.eval.frames)
        if view.taken:
            positions = positions_seen(item, view.taken, positions, times_F, settings.eval.seed)
        return positions

    title = f"eval {exam.split}, {view.name}: {label}"
    ask_items(settings, title, model, exam.store, items, positions_of, record)


def ask_items(
    settings: RunConfig,
    title: str,
    model: LoadedModel,
    store: FrameStore,
    items: Sequence[Item],
    positions_of: Callable[[Item, np.ndarray], np.ndarray],
    record: Path,
) -> list[Record]:
    """Ask a model about the videos of a store, with a bar of this title.

    Args:
      settings: how it is asked.
      positions_of: (item, seconds of the stored frames) -> positions of those that are shown.
      record: lines of what it said, appended to.

    Raises:
      InputError: the store lacks a video.
    """
    ids = {name: video for video in store.videos for name in store.info(video).names}

    def frames_of(item: Item) -> tuple[str, np.ndarray]:
        if item.video not in ids:
            raise InputError(f"{store.path}: has no video {item.video}, which the truth names")
        return ids[item.video], positions_of(item, store.info(ids[item.video]).times_F)

    examiner = make_examiner(settings, model, store)
    with stage_progress(title, len({item.video for item in items})) as update:

        def ask(some: Sequence[Item], to: Path, recorded: Sequence[Path] = ()) -> list[Record]:
            def progress(done: int, total: int, detail: str) -> None:
                update(done, detail)

            return run_task(some, examiner, frames_of, to, progress, recorded=recorded)

        if jax.process_count() > 1:
            # Each host asks about videos of its own; the first then writes what all were told.
            number, hosts = jax.process_index(), jax.process_count()
            mine = set(list(dict.fromkeys(item.video for item in items))[number::hosts])
            of_hosts = f"{record.stem}.host_*.jsonl"
            before = [record, *sorted(record.parent.glob(of_hosts))]
            own = record.with_name(of_hosts.replace("*", str(number)))
            ask([item for item in items if item.video in mine], own, before)
            wait_for_all(f"{record} is asked")
            if is_first_host():
                for path in sorted(record.parent.glob(of_hosts)):
                    append_lines(record, map(asdict, read_records(path)))
                    path.unlink()
            wait_for_all(f"{record} is written")
        return ask(items, record)
