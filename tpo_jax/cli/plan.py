"""`tpo plan`: what a step takes on TPU slices that are not there."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from ml_collections import ConfigDict
from rich.console import Console

from data_pipelines.batches import fitting_shape, round_up
from tpo_jax.api import PROMPT_BUCKET
from tpo_jax.attention import row_multiple
from tpo_jax.cli.planned_model import PlannedModel, find_model
from tpo_jax.cli.progress import stage_progress
from tpo_jax.cli.settings import RunConfig, read_settings
from tpo_jax.models.presets import PRESETS
from tpo_jax.parallel.mesh import MeshConfig
from tpo_jax.planning.compiler import Compile, check_compiler, compile_in_child
from tpo_jax.planning.hardware import Slice, parse_slice
from tpo_jax.planning.plan import Plan, find_largest, make_plan, plan_json
from tpo_jax.planning.tables import side_by_side
from tpo_jax.planning.work import Work, check_work, slice_mesh
from tpo_jax.training.optimizer import OptimizerConfig

STEPS = ("train", "reference", "generate")
# Tokens of a prompt beside its video: the system's sentence, the question, the template.
TEXT_TOKENS = 128
# Tokens of the template that `prompts.labels="chatml"` supervises in a prompt.
CHATML_TARGETS = 6
COLUMNS_IN_A_FILE = 200

HELP = """
The step that would train is compiled by the TPU compiler for each slice, in a process of its own;
no TPU, no checkpoint and no data are needed. The compiler says what memory it takes and what it
moves. Time is a model: FLOPs, bytes and peak rates, with shares of them that are assumed.

  what the paper's run takes on 64 v5p chips, and on 16 and 64 smaller ones:
    tpo plan --config=llava_video_7b_tpo --topology=v5p-128,v5e-16,v6e-64

  how many frames of LongVA fit when 16 chips share a row, inputs of layers on the host:
    tpo plan --config=longva_7b_tpo --topology=v5p:4x4x4 --pairs=4 --find-max-frames \\
        --config.mesh.context=16 --config.train.remat=offload

A slice is a topology (v5p:4x4x4) or a common name (v5p-128: cores, v5litepod-16: chips); 2xv5p-128
is two of them, joined by config.mesh.data. Exit status 0 also when a step does not fit.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HELP
    parser.add_argument(
        "--topology", metavar="SLICE[,SLICE]", required=True, help="slices to plan for"
    )
    parser.add_argument("--step", choices=STEPS, default="train", help="(default: %(default)s)")
    parser.add_argument(
        "--model",
        metavar="PRESET",
        help="a published model; default: config.checkpoint's config.json, or else the model that "
        f"its name resembles. One of {', '.join(PRESETS)}",
    )
    parser.add_argument(
        "--frames", type=count, metavar="N", help="of a video (default: config.train_frames)"
    )
    parser.add_argument(
        "--pairs",
        type=count,
        metavar="N",
        help="in a step; prompts at once for --step=generate (default: config.train.batch_pairs)",
    )
    parser.add_argument(
        "--answer-tokens",
        type=count,
        default=512,
        metavar="N",
        help="of the longest answer (default: %(default)s)",
    )
    parser.add_argument(
        "--text-tokens",
        type=count,
        default=TEXT_TOKENS,
        metavar="N",
        help="of a prompt beside its video (default: %(default)s)",
    )
    parser.add_argument(
        "--pairs-in-run",
        type=count,
        metavar="N",
        help="for hours and chip-hours (default: config.curate.pairs, times epochs to train)",
    )
    search = parser.add_mutually_exclusive_group()
    search.add_argument(
        "--find-max-frames", action="store_true", help="plan for the most frames that fit"
    )
    search.add_argument(
        "--find-batch", action="store_true", help="plan for the most pairs that fit"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")


def count(text: str) -> int:
    """A whole number, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return number


def run(args: argparse.Namespace, config: ConfigDict | None) -> None:
    """Run the verb."""
    settings = read_settings(config)
    slices = [parse_slice(name) for name in args.topology.split(",")]
    model = find_model(args.model, settings.checkpoint)
    request = Request(args=args, settings=settings, model=model)
    for where in slices:  # what is wrong is said before the first compile
        mesh = slice_mesh(settings.mesh, where)
        check_work(request.work(mesh), mesh)
    check_compiler()
    plans = []
    with stage_progress("plan", len(slices)) as update:
        for number, where in enumerate(slices, start=1):
            plans.append(request.plan(where))
            update(number, where.name)
    notes = [model.said, *(note for plan in plans for note in request.notes(plan))]
    about = f"{args.step} step of {model.name}"
    if args.json:
        found = {"model": model.name, "notes": notes, "slices": [plan_json(one) for one in plans]}
        print(json.dumps(found))
        return
    console = Console(width=None if sys.stdout.isatty() else COLUMNS_IN_A_FILE)
    console.print(side_by_side(plans, about))
    for note in dict.fromkeys(notes):
        console.print(note, markup=False, highlight=False)


# --------------------------------------------------------------------------------------- the work


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked: options over the config, for a model."""

    args: argparse.Namespace
    settings: RunConfig
    model: PlannedModel

    def work(self, mesh: MeshConfig) -> Work:
        """The step as it would run on this (filled) mesh."""
        args, settings = self.args, self.settings
        language = replace(self.model.config.language, remat=settings.train.remat)
        names = [field.name for field in fields(OptimizerConfig)]
        work = Work(
            step=args.step,
            config=replace(self.model.config, language=language),
            frames=0,
            prompt_tokens=0,
            answer_tokens=args.answer_tokens,
            prompt_targets=CHATML_TARGETS if settings.prompts.labels == "chatml" else 0,
            pairs=args.pairs or settings.train.batch_pairs,
            loss=settings.loss,
            optimizer=OptimizerConfig(**{name: getattr(settings.train, name) for name in names}),
            compute_dtype=settings.compute_dtype,
            accumulate=settings.train.accumulate if args.step == "train" else 1,
            xla_options=settings.train.xla_options if args.step == "train" else (),
        )
        return self.with_frames(work, args.frames or settings.train_frames, mesh)

    def with_frames(self, work: Work, frames: int, mesh: MeshConfig) -> Work:
        """The work with so many frames, its rows padded as they are when they are made."""
        prompt = self.model.config.tokens_per_video(frames) + self.args.text_tokens
        if work.step == "generate":
            padded = round_up(prompt, math.lcm(PROMPT_BUCKET, mesh.context))
            return replace(work, frames=frames, prompt_tokens=padded)
        shape = fitting_shape(
            [prompt],
            [work.answer_tokens],
            answers=work.answers,
            multiple=row_multiple("tpu", mesh.context),
        )
        return replace(
            work,
            frames=frames,
            prompt_tokens=shape.prompt_tokens,
            answer_tokens=shape.answer_tokens,
        )

    def plan(self, where: Slice) -> Plan:
        """The plan for one slice, after the search that was asked for."""
        args, mesh = self.args, slice_mesh(self.settings.mesh, where)
        work = self.work(mesh)
        compile_work: Compile = compile_in_child
        if args.find_max_frames:
            work, compile_work = find_largest(
                mesh,
                where,
                changed=lambda frames: self.with_frames(work, frames, mesh),
                start=work.frames,
                step=mesh.context,  # others would lie whole on every device of a row
                what="frames",
                compile_work=compile_in_child,
            )
        if args.find_batch:
            work, compile_work = find_largest(
                mesh,
                where,
                changed=lambda pairs: replace(work, pairs=pairs),
                start=work.pairs,
                step=mesh.data * mesh.fsdp * work.accumulate,
                what="pairs",
                compile_work=compile_in_child,
            )
        epochs = self.settings.train.epochs if args.step == "train" else 1
        pairs_in_run = args.pairs_in_run or self.settings.curate.pairs * epochs
        return make_plan(work, mesh, where, pairs_in_run=pairs_in_run, compile_work=compile_work)

    def notes(self, plan: Plan) -> Sequence[str]:
        """What to know about a plan, a line each."""
        work, name, mesh = plan.work, plan.where.name, plan.mesh
        visual = self.model.config.tokens_per_video(work.frames)
        used = visual + self.args.text_tokens
        said = []
        if work.step != "generate":
            multiple = row_multiple("tpu", mesh.context)
            said.append(
                f"{name}: rows of {work.row_tokens:,} tokens: {visual:,} of the video, "
                f"{self.args.text_tokens:,} of text, {work.answers} x {work.answer_tokens:,} of "
                f"answers, padded to a multiple of {multiple:,}"
            )
        longest, trained = used + work.answer_tokens, self.model.trained_length
        if trained is not None and longest > trained:
            said.append(
                f"warning: {name}: prompt and answer have {longest:,} tokens; "
                f"{self.model.name} was trained for {trained:,}"
            )
        if plan.where.slices > 1 and self.settings.mesh.data == 1:
            said.append(f"{name}: config.mesh.data={mesh.data}, one for each slice")
        if plan.compiled.traffic is None and not plan.compiled.refused:
            said.append(
                f"warning: {name}: this libtpu cannot print its program, so there is no time; "
                "pip install tpo_jax[plan] has one that can"
            )
        return said
