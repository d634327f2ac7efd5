"""A tiny whole run, made once: what the cases of `fuzz.py` damage copies of."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.tasks.own_choices import TASK
from data_pipelines.frames import FrameStore
from data_pipelines.pair_formats.row import from_pair
from data_pipelines.pairs import Pair, read_pairs, write_pairs
from data_pipelines.synthetic import write_videos
from tpo_jax.cli.doctor_model import SHIPPED, shipped_case
from tpo_jax.cli.main import main
from tpo_jax.interop.golden_case import OUTPUTS
from tpo_jax.loading import ASSETS

SMALL = (
    "--config.workers=1",
    "--config.train_frames=2",
    "--config.frames.max_frames=8",
    "--config.sampling.max_new_tokens=2",
    "--config.curate.dense_frames=4",
    "--config.curate.sparse_frames=2",
    "--config.curate.segment_frames=2",
    "--config.curate.segment_seconds=8.0",
    "--config.curate.pairs=4",
    "--config.curate.comprehensive_per_video=1",
    "--config.curate.texts.inside=False",
    "--config.curate.texts.unfinished=False",
    "--config.train.steps=2",
    "--config.train.batch_pairs=2",
    "--config.train.save_every=1",
    "--config.eval.frames=2",
    "--config.eval.localized_per_video=1",
    "--config.eval.comprehensive_per_video=1",
)
EVAL = ("--tasks=own", "--set=frames=2", "--set=max_new_tokens=2", "--config.workers=1")
QUESTION = "What comes first?"


def run_arguments(folder: Path) -> list[str]:
    """The config of the run in a copy of the base."""
    return [
        "--config=own_videos",
        f"--config.run_dir={folder / 'run'}",
        f"--config.videos={folder / 'videos'}",
        f"--config.eval.videos={folder / 'videos'}",
        f"--config.eval.truth={folder / 'truth.json'}",
        *SMALL,
    ]


def make_base(folder: Path) -> None:
    """Videos, a run of every stage, its export and import, pair files, questions and results."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    videos = partial / "videos"
    write_videos(videos, partial / "truth.json", count=2, events=(2, 2), seed=5)
    for verb in ("frames", "curate", "reference", "train", "export", "eval", "report"):
        run([verb, *run_arguments(partial)])
    export = partial / "run" / "export"
    run(["import", str(export), str(partial / "imported")])
    write_pair_files(partial)
    write_questions(partial)
    for name in ("first", "second"):
        data = f"--data={partial / 'own.jsonl'}"
        run(
            ["eval", *EVAL, data, f"--videos={videos}", f"--checkpoint={export}"]
            + [f"--out={partial / name}"]
        )
    write_case(partial / "golden")
    # As a kill before the end leaves it.
    unfinished = partial / "run" / "train.partial"
    shutil.copytree(partial / "run" / "train", unfinished)
    (unfinished / "manifest.json").unlink()
    shutil.rmtree(unfinished / "checkpoints" / "step_2")
    partial.rename(folder)


def make_small_base(folder: Path) -> None:
    """What needs no model to run: videos, their frames, pairs, questions, a log, checkpoints."""
    videos = folder / "videos"
    write_videos(videos, folder / "truth.json", count=2, events=(2, 2), seed=5)
    run(["frames", *run_arguments(folder)])
    shutil.copytree(ASSETS / SHIPPED, folder / "run" / "export")
    run(["import", str(ASSETS / SHIPPED), str(folder / "imported")])
    names = FrameStore.open(folder / "run" / "frames").videos
    pairs = [
        Pair(
            id=f"p{number}",
            video_id=name,
            granularity="comprehensive",
            kind="given",
            question=QUESTION,
            chosen="a ring",
            rejected="a star",
            negative="none",
            chosen_frames=[],
            rejected_frames=[],
            segment=None,
            generator="unknown",
            sampling={},
            judge="none",
        )
        for number, name in enumerate(names)
    ]
    (folder / "run" / "pairs").mkdir()
    write_pairs(folder / "run" / "pairs" / "pairs.jsonl", pairs)
    write_pair_files(folder)
    write_questions(folder)
    write_case(folder / "golden")


def run(arguments: list[str]) -> None:
    """A verb that must succeed."""
    status = main(arguments)
    if status:
        raise RuntimeError(f"tpo {' '.join(arguments)}: exit status {status}")


def write_pair_files(folder: Path) -> None:
    """The run's pairs in every format that is read."""
    ours, store = folder / "run" / "pairs" / "pairs.jsonl", folder / "run" / "frames"
    out = folder / "pair_files"
    out.mkdir()
    shutil.copyfile(ours, out / "ours.jsonl")
    for name, suffix in (("llava_next", ".json"), ("ms_swift", ".jsonl")):
        to = [f"--to={name}", f"--out={out / (name + suffix)}"]
        run(["pairs", str(ours), f"--videos={store}", *to])
    rows = json.loads((out / "llava_next.json").read_text())
    factory, trl = [], []
    for row in rows:
        question, video = row["prompt"].replace("<image>\n", ""), row["video"]
        said = {
            side: {"from": "gpt", "value": row[side], "role": "assistant", "content": row[side]}
            for side in ("chosen", "rejected")
        }
        human = {"from": "human", "value": f"<video>{question}"}
        factory.append({"conversations": [human], **said, "videos": [video]})
        parts = [{"type": "video", "path": video}, {"type": "text", "text": question}]
        trl.append(
            {"prompt": [{"role": "user", "content": parts}]}
            | {
                side: [{"role": "assistant", "content": row[side]}]
                for side in ("chosen", "rejected")
            }
        )
    (out / "llama_factory.json").write_text(json.dumps(factory))
    (out / "trl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in trl))
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["video", "prompt", "chosen", "rejected"])
        writer.writeheader()
        writer.writerows({key: row[key] for key in writer.fieldnames} for row in rows)
    pairs = [from_pair(pair, "") for pair in read_pairs(ours)]
    answers = [
        {"video": row["video"], "question": f"{pair.question} {number}", "answer": pair.chosen}
        for number, (row, pair) in enumerate(zip(rows, pairs, strict=True))
    ]
    lines = "".join(json.dumps(row) + "\n" for row in answers)
    (out / "answers.jsonl").write_text(lines)


def write_questions(folder: Path) -> None:
    """Questions of one's own, and what lmms-eval would have logged of them."""
    names = sorted(path.name for path in (folder / "videos").iterdir())
    rows = [
        {
            "id": f"q{number}",
            "video": name,
            "question": QUESTION,
            "options": ["a ring", "a star"],
            "answer": "B",
            "groups": {"kind": "order"},
            "segment": [0.0, 1.0],
        }
        for number, name in enumerate(names)
    ]
    data = folder / "own.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = [
        {"doc_id": number, "target": item.answer, "filtered_resps": "A", "input": item.question}
        for number, item in enumerate(TASK.read(data))
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


def write_case(folder: Path) -> None:
    """A golden case of right shapes and wrong numbers: `tpo verify` reads it and says no."""
    case = shipped_case()
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(case.folder / name, folder / name)
    shutil.copyfile(case.folder / "model.safetensors", folder / "reference.safetensors")
    inputs: dict[str, Any] = {
        "prompt": case.prompt,
        "chosen": case.chosen,
        "rejected": case.rejected,
    }
    weights: dict[str, Any] = {"beta": np.float32(case.beta), "gamma": np.float32(case.sft_weight)}
    np.savez(folder / "inputs.npz", frames=case.frames_FHWC, **inputs, **weights)
    vision, language = case.config.vision, case.config.language
    frames = len(case.frames_FHWC)
    shapes = {
        "vision_features": (frames, vision.side**2, vision.width),
        "visual_tokens": (case.config.tokens_per_video(frames), language.width),
        "chosen_logits": (len(case.chosen), language.vocab_rows),
        "rejected_logits": (len(case.rejected), language.vocab_rows),
    }
    outputs: dict[str, Any] = {name: np.zeros(shapes.get(name, ()), np.float32) for name in OUTPUTS}
    np.savez(folder / "outputs.npz", **outputs)
    save_file(
        {"model.norm.weight": np.zeros(language.width, np.float32)}, folder / "grads.safetensors"
    )


def settings_text(folder: Path) -> str:
    """A config file that is the run's config."""
    lines = [
        f"    config.{key} = {value!r}"
        for key, value in (
            ("run_dir", str(folder / "run")),
            ("videos", str(folder / "videos")),
            ("workers", 1),
            ("train_frames", 2),
        )
    ]
    return "\n".join(
        [
            "from tpo_jax.cli.config import load_config",
            "",
            "",
            "def get_config():",
            '    config = load_config("own_videos").unlock()',
            *lines,
            "    return config",
            "",
        ]
    )
