"""`tpo demo-base`: teach the demo's base model, by plain supervision on clips."""

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict
from tokenizers import Tokenizer

from data_pipelines.artefacts import building, check_unfinished, file_sha256, write_json
from data_pipelines.images import ImagePolicy
from data_pipelines.lessons import LessonPlan, lesson_batch, train_tokenizer
from data_pipelines.loader import read_ahead
from tpo_jax.api import ASSETS
from tpo_jax.cli.base_acceptance import check_base, examine_base
from tpo_jax.cli.progress import stage_progress, warn
from tpo_jax.cli.settings import as_json
from tpo_jax.errors import InputError
from tpo_jax.interop.writer import write_checkpoint
from tpo_jax.models.checkpoint_config import config_from_json, image_mode
from tpo_jax.models.presets import demo_model_json
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model, init_params
from tpo_jax.parallel.mesh import MeshConfig, make_mesh
from tpo_jax.preference.losses import EveryAnswerSFT
from tpo_jax.training.loop import LoopConfig, train
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer
from tpo_jax.training.run_log import read_metrics
from tpo_jax.training.step import init_state, make_train_step

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A course of lessons with its own rise and fall of the learning rate."""

    steps: int
    lessons: LessonPlan
    optimizer: OptimizerConfig


def _optimizer(learning_rate: float) -> OptimizerConfig:
    return OptimizerConfig(
        learning_rate=learning_rate, warmup_ratio=0.05, weight_decay=0.01, b2=0.98, frozen=()
    )


LESSONS = LessonPlan(
    seed=0,
    clips=16,
    questions=5,
    single_events_until=120,
    long_from=350,
    long_clips=6,
    about_the_end=1 / 7,  # any of the six to eight events
)
LONG_LESSONS = replace(LESSONS, seed=1, single_events_until=0, long_from=0)
SHORTCUT = replace(LONG_LESSONS, seed=2, overlooked=0.4)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the base model is taught: to see, on short clips and then on long ones too, with a second
    rise of the learning rate; then a shortcut, to tell of the end of long ones.
    """

    seed: int = 0
    vocabulary: int = 512
    phases: tuple[Phase, ...] = (
        Phase(steps=900, lessons=LESSONS, optimizer=_optimizer(1.5e-3)),
        Phase(steps=1600, lessons=LONG_LESSONS, optimizer=_optimizer(1.2e-3)),
        Phase(steps=400, lessons=SHORTCUT, optimizer=_optimizer(1.2e-3)),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("--out", type=Path, default=Path("runs/demo_base"), help="folder to write")
    parser.add_argument("--steps", type=int, help="of a phase at most, for a trial")
    parser.epilog = (
        "Takes about half an hour on two CPU cores. Killed and run again, it goes on from its "
        "newest checkpoint. The base is refused unless it sees well and looks in the wrong place "
        "(cli/base_acceptance.py). At the end it says whether the weights are those that ship "
        "with tpo_jax."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    if args.out.exists():
        raise InputError(f"{args.out}: exists already; delete it or give another --out")
    recipe = Recipe()
    if args.steps is not None:
        short = [replace(one, steps=min(one.steps, args.steps)) for one in recipe.phases]
        recipe = replace(recipe, phases=tuple(short))
    work = args.out.with_name(args.out.name + ".training")
    taught = work / "checkpoint"
    if not taught.exists():
        teach(recipe, work, taught)
    told = examine_base(taught, work / "development")
    print(json.dumps(told, indent=1))
    check_base(told)
    with building(args.out) as folder:
        shutil.copytree(taught, folder, dirs_exist_ok=True)
        record = json.loads((taught / "recipe.json").read_text())
        write_json(folder / "recipe.json", record | {"on_development_videos": told})
    digest = file_sha256(args.out / WEIGHTS)
    print(f"{args.out / WEIGHTS}: sha256 {digest}")
    shipped = ASSETS / "demo_base" / WEIGHTS
    if shipped.exists():
        same = digest == file_sha256(shipped)
        print(f"these are {'' if same else 'not '}the weights that ship with tpo_jax")


def teach(recipe: Recipe, work: Path, out: Path) -> None:
    """Train by the recipe in folder `work` and write a checkpoint folder in the authors' layout."""
    tokenizer = train_tokenizer(recipe.vocabulary)
    model_json = demo_model_json(tokenizer.get_vocab_size())
    config = config_from_json(model_json)
    # It is small: time is dearer than memory.
    config = replace(config, language=replace(config.language, remat="none"))
    graph, _ = abstract_model(config)
    params = init_params(config, recipe.seed)
    for number, phase in enumerate(recipe.phases, start=1):
        folder = work / f"phase_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        check_unfinished(folder, {"seed": recipe.seed, "phase": as_json(phase)})
        params = _teach_phase(phase, params, config, graph, tokenizer, folder)
    with building(out) as folder:
        tokenizer.save(str(work / "tokenizer.json"))
        write_checkpoint(
            folder,
            config=config,
            params=params,
            json=model_json,
            dtype="float32",
            side_files=[work / "tokenizer.json"],
        )
        loss = [
            one["sft_loss"] for one in read_metrics(work / f"phase_{len(recipe.phases)}")[-100:]
        ]
        record = {
            "recipe": as_json(recipe),
            "loss_of_last_100_steps": sum(loss) / len(loss),
            "sha256": {name: file_sha256(folder / name) for name in (WEIGHTS, "tokenizer.json")},
        }
        write_json(folder / "recipe.json", json.loads(json.dumps(record)))


def _teach_phase(
    phase: Phase,
    params: Params,
    config: VideoLMMConfig,
    graph: nnx.GraphDef,
    tokenizer: Tokenizer,
    folder: Path,
) -> Params:
    """The parameters after a phase, from its newest checkpoint on."""
    batch = partial(
        lesson_batch,
        plan=phase.lessons,
        tokenizer=tokenizer,
        images=ImagePolicy(size=config.vision.image_size, mode=image_mode(config)),
        tokens_per_frame=config.tokens_per_frame,
    )
    optimizer = make_optimizer(phase.optimizer, phase.steps)
    with stage_progress(f"demo-base, {folder.name}", phase.steps) as update:
        state = train(
            init_state(params, {}, optimizer),
            make_train_step(graph, EveryAnswerSFT(), optimizer, jnp.dtype("float32")),
            lambda start: read_ahead(batch, start, phase.steps, threads=1),
            folder,
            config=LoopConfig(steps=phase.steps, save_every=100),
            mesh=make_mesh(MeshConfig()),
            compute_dtype="float32",
            at_reference=None,
            progress=lambda done, total, detail: update(done, detail),
            warn=warn,
        )
    return state.params
