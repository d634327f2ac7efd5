"""Makes task_cases.json: what the harnesses of the field make of the rows of task_rows.py.

    pip download --no-deps lmms_eval==0.7.3 -d wheels
    git clone https://github.com/EvolvingLMMs-Lab/lmms-eval
    git clone https://github.com/doc-doc/NExT-GQA
    git clone https://github.com/patrick-tssn/VideoHallucer
    python -m tests.benchmarks.task_cases_maker wheels/lmms_eval-*.whl lmms-eval NExT-GQA \
        VideoHallucer

It runs from the root of this repository. The package need not be installed, and cannot be beside
this one (it wants an older PyAV): single files are taken out of it, and what they import but need
not have is replaced by empty modules. The second argument is for the state of January 2025, of
which there is no package. Bare repositories will do, too. Only results are written, none of the
code; long prompts as hashes.
"""

import ast
import collections
import contextlib
import hashlib
import importlib
import io
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.benchmarks import task_rows

OUT = Path(__file__).with_name("task_cases.json")
JANUARY = "b1fbf55f4f11cc2c30aa628252723f35c1dc1d90"
NEEDED = ("videomme", "longvideobench", "mlvu", "mvbench", "tempcompass", "nextqa", "_task_utils")
EMPTY = ("cv2", "datasets", "decord", "pandas", "requests", "loguru", "lmms_eval.utils")
PARTS = ("multi-choice", "yes_no", "caption_matching")
LVB_AFTER = "Answer with the option's letter from the given choices directly.\n"


def digest(text: str) -> str:
    """Enough of a hash to tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def unpack(wheel: Path, folder: Path) -> None:
    """Only the tasks' folders, so that importing them runs nothing of the package's own."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            parts = name.split("/")
            wanted = parts[:2] == ["lmms_eval", "tasks"] and len(parts) > 3 and parts[2] in NEEDED
            if (wanted and parts[-1] != "__init__.py") or name == "lmms_eval/api/metrics.py":
                archive.extract(name, folder)


def stand_in(folder: Path) -> None:
    """Empty modules for what is imported but not needed here."""
    for name in EMPTY:
        sys.modules[name] = ModuleType(name)
    sys.modules["loguru"].logger = SimpleNamespace(info=lambda *a: None, error=print)  # type: ignore[attr-defined]
    sys.modules["datasets"].Dataset = object  # type: ignore[attr-defined]
    sys.modules["decord"].VideoReader = Reader  # type: ignore[attr-defined]
    sys.modules["decord"].cpu = lambda n: None  # type: ignore[attr-defined]
    sys.modules["cv2"].CAP_PROP_FPS, sys.modules["cv2"].CAP_PROP_FRAME_COUNT = "fps", "frames"  # type: ignore[attr-defined]
    sys.modules["cv2"].VideoCapture = lambda path: SimpleNamespace(get=FACTS.__getitem__)  # type: ignore[attr-defined]
    sys.modules["lmms_eval.utils"].resolve_cache_dir = lambda name, base_dir: str(folder)  # type: ignore[attr-defined]


FACTS: dict[str, float] = {"fps": 30.0, "frames": 900}


class Reader:
    """A video that notes which of its frames are asked for."""

    taken: list[int] = []

    def __init__(self, path: str, **_: Any):
        """Any path will do."""

    def get_avg_fps(self) -> float:
        """Of the video that is played."""
        return FACTS["fps"]

    def get_batch(self, numbers: list[int]) -> Any:
        """Black frames."""
        Reader.taken = list(numbers)
        return SimpleNamespace(asnumpy=lambda: np.zeros((len(numbers), 1, 1, 3), np.uint8))


def from_git(repository: Path, name: str, path: str, commit: str = "HEAD") -> ModuleType:
    """A module of one file of a repository, without what it imports from its own project."""
    show = ["git", "-C", str(repository), "show", f"{commit}:{path}"]
    source = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    return functions_of(source, name)


def functions_of(source: str, name: str) -> ModuleType:
    """Only the functions and plain constants of a source, run in a module of their own."""
    tree = ast.parse(source)
    kept: list[ast.stmt] = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.Assign) and isinstance(node.value, (ast.List, ast.Constant)))
    ]
    for node in kept:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []  # they enter functions in the harness' registries
    module = ModuleType(name)
    log = SimpleNamespace(info=lambda *a: None)
    known = {"re": re, "np": np, "os": os, "json": json, "math": math, "collections": collections}
    typing = {"List": list, "Any": Any, "eval_logger": log, "datasets": sys.modules["datasets"]}
    module.__dict__.update(known | typing)
    exec(compile(ast.Module(kept, []), name, "exec"), module.__dict__)
    return module


# ------------------------------------------------------------------------------------ tasks


def video_mme(new: ModuleType, old: ModuleType, folder: Path) -> dict[str, Any]:
    """Prompts with and without subtitles, letters by both rules, and the sums."""
    default = {"post_prompt": "\nAnswer with the option's letter from the given choices directly."}
    forms = {"0.7.3": default, "0.7.3 llava_vid": {"post_prompt": "The best answer is:"}}
    rng = random.Random(1)
    rows = [task_rows.video_mme(rng, number) for number in range(300)]
    said = [task_rows.reply(rng) for _ in rows]
    prompts = {
        form: [digest(new.videomme_doc_to_text(row, words)) for row in rows[:100]]
        for form, words in forms.items()
    }
    texts = []
    (folder / "videomme" / "subtitle").mkdir(parents=True)
    for number in range(240):
        rng = random.Random(number)
        row = task_rows.video_mme(rng, number * 3)
        points = (32, 32, 32, 768, -1, 7)[number % 6]
        FACTS.update(
            fps=rng.choice([23.976, 25.0, 29.97]), frames=rng.choice([1, 700, 5000, 20000])
        )
        seconds = FACTS["frames"] / FACTS["fps"]
        path = folder / "videomme" / "subtitle" / f"{row['videoID']}.srt"
        if number % 20:
            path.write_text(task_rows.srt(rng, seconds), "utf-8")
        texts.append(digest(new.videomme_doc_to_text_subtitle(row, {"frame_num": points})))
    results = {}
    for form, module in (("new", new), ("legacy", old)):
        told = [
            module.videomme_process_results(row, [text])["videomme_perception_score"]
            for row, text in zip(rows, said, strict=True)
        ]
        cut = [told[:n] for n in (1, 10, 90, 300)]
        results[form] = {
            "letters": "".join(one["pred_answer"] or "-" for one in told),
            "sums": [module.videomme_aggregate_results(some) for some in cut],
        }
    return {"prompts": prompts, "subtitles": texts} | results


def longvideobench(new: ModuleType, folder: Path) -> dict[str, Any]:
    """Both prompts, the frames between subtitles, letters with guesses in order, and the sums."""
    rng = random.Random(2)
    rows = [task_rows.longvideobench(rng, number) for number in range(400)]
    said = [task_rows.reply(rng) for _ in rows]
    words = {"pre_prompt": "", "post_prompt": LVB_AFTER}
    interleaved, frames = [], []
    (folder / "subtitles").mkdir()
    for number, row in enumerate(rows[:200]):
        rng = random.Random(number)
        subtitles = task_rows.longvideobench_subtitles(rng, row)
        (folder / "subtitles" / row["subtitle_path"]).write_text(json.dumps(subtitles), "utf-8")
        text = new.longvideobench_doc_to_text(row, words | {"insert_interleave_subtitles": True})
        interleaved.append(digest(text))
        FACTS.update(fps=rng.choice([23.976, 25.0, 29.97]))
        new.load_video("any", row["duration"])
        frames.append(digest(json.dumps(Reader.taken)))
    random.seed(0)
    told = [
        new.longvideobench_process_results(row, [text])["lvb_acc"]
        for row, text in zip(rows, said, strict=True)
    ]
    return {
        "prompts": [digest(new.longvideobench_doc_to_text(row, words)) for row in rows[:200]],
        "interleaved": interleaved,
        "frames": frames,
        "letters": "".join(one["parsed_pred"] for one in told),
        "sums": [new.longvideobench_aggregate_results(told[:n]) for n in (1, 10, 77, 400)],
    }


def mlvu(new: ModuleType, old: ModuleType) -> dict[str, Any]:
    """Prompts, letters and averages of 0.7.3 and of January 2025."""
    rng = random.Random(3)
    rows = [task_rows.mlvu(rng, number) for number in range(400)]
    said = [task_rows.reply(rng) for _ in rows]
    after = {"pre_prompt": "", "post_prompt": "\nOnly give the best option.\nBest option: ("}
    old.__dict__["TASK_TYPES"] = list(task_rows.MLVU_TYPES)  # it had the paper's names for them
    found = {}
    for form, module, metric, total in (
        ("new", new, "mlvu_percetion_score", "mlvu_aggregate_results_dev"),
        ("legacy", old, "mlvu_perception_score", "mlvu_aggregate_results"),
    ):
        told = [
            module.mlvu_process_results(row, [text])[metric]
            for row, text in zip(rows, said, strict=True)
        ]
        found[form] = {
            "prompts": [digest(module.mlvu_doc_to_text(row, after)) for row in rows[:100]],
            "letters": "".join(one["pred_answer"] or "-" for one in told),
            "sums": [getattr(module, total)(told[:n]) for n in (7, 60, 400)],
        }
    return found


def mvbench(new: ModuleType) -> dict[str, Any]:
    """Prompts, hits and the sums over one task."""
    rng = random.Random(4)
    rows = [task_rows.mvbench(rng, number) for number in range(500)]
    said = ["" if number % 25 == 0 else task_rows.reply(rng) for number in range(500)]
    after = {"post_prompt": "Only give the best option.\n"}
    told = [
        new.mvbench_process_results(row, [text])["mvbench_accuracy"]
        for row, text in zip(rows, said, strict=True)
    ]
    return {
        "prompts": [digest(new.mvbench_doc_to_text(row, after)) for row in rows[:100]],
        "hits": "".join(str(one["score"]) for one in told),
        "sums": [new.mvbench_aggregate_results(told[:n]) for n in (2, 60, 500)],
    }


def tempcompass(new: ModuleType) -> dict[str, Any]:
    """Prompts, and hits by rule: 1, 0, or "-" where a language model would be asked."""
    after = {
        "multi-choice": "\nPlease directly give the best option:",
        "yes_no": "\nPlease answer yes or no:",
        "caption_matching": "\nPlease directly give the best option:",
    }
    new.__dict__["get_eval_result"] = lambda prompt: ("Incorrect", 0)
    found = {}
    for part in PARTS:
        rng = random.Random(5)
        rows = [task_rows.tempcompass(rng, part, number) for number in range(300)]
        name = part.replace("-", "_")
        ask = getattr(new, f"tempcompass_doc_to_text_{name}")
        words = {"pre_prompt": "", "post_prompt": after}
        judge = getattr(new, f"tempcompass_process_results_{name}")
        told = [judge(row, [task_rows.tempcompass_reply(rng, row)])["avg_accuracy"] for row in rows]
        found[part] = {
            "prompts": [digest(ask(row, words)) for row in rows[:60]],
            "hits": "".join(str(one["rating"]) if one["match_success"] else "-" for one in told),
        }
    return found


def nextgqa(lmms: ModuleType, own: ModuleType) -> dict[str, Any]:
    """Prompts of lmms-eval's NExT-QA, and what eval_ground.py prints of spans."""
    rng = random.Random(6)
    rows = [task_rows.nextqa(rng, number) for number in range(300)]
    gold: dict[str, Any] = {}
    told, right = {}, {}
    for row in rows:
        place = gold.setdefault(row["video_id"], {"duration": 60, "location": {}, "fps": 25})
        place["location"][row["qid"]] = task_rows.spans(rng, 60)
        span = task_rows.told_span(rng, 60)
        name = f"{row['video_id']}_{row['qid']}"
        right[name] = {"answer": 1, "prediction": int(rng.random() < 0.6)}
        if span is not None:
            told[name] = span
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        own.eval_ground(gold, told, right)
    return {
        "prompts": [digest(lmms.nextqa_doc_to_text_mc(row, {})) for row in rows[:100]],
        "printed": out.getvalue().splitlines()[-1].split(),
        "overlaps": [
            own.get_tIoU([2.5, 9.0], [a / 2, b / 2]) for a in range(24) for b in range(a, 24)
        ],
    }


def videohallucer(own: ModuleType) -> list[dict[str, float]]:
    """Scores of five subsets."""
    rng = random.Random(7)
    found = []
    for _ in range(5):
        rows = [task_rows.videohallucer(rng, number) for number in range(60)]
        for row in rows:
            for side in ("basic", "hallucination"):
                row[side]["predict"] = task_rows.yes_no_reply(rng)
        found.append(own.cal_score(rows))
    return found


def standard_errors(metrics: Path) -> list[float]:
    """Clustered standard errors of 0 and 1 in clusters."""
    own = functions_of(metrics.read_text("utf-8"), "metrics")
    found = []
    for seed in range(60):
        rng = random.Random(seed)
        values = [float(rng.random() < 0.4) for _ in range(rng.randint(2, 80))]
        found.append(own.clustered_stderr(values, [rng.randrange(12) for _ in values]))
    return found


def main(wheel: Path, january: Path, next_gqa: Path, hallucer: Path) -> None:
    """Writes the file."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["HF_HOME"] = place
        unpack(wheel, folder)
        stand_in(folder)
        sys.path.insert(0, place)
        sys.modules["pandas"].DataFrame = object  # type: ignore[attr-defined]
        loader = ModuleType("lmms_eval.tasks._task_utils.video_loader")
        loader.get_cache_dir = loader.get_video = None  # type: ignore[attr-defined]
        sys.modules[loader.__name__] = loader
        new = {
            name: importlib.import_module(f"lmms_eval.tasks.{name}.utils") for name in NEEDED[:5]
        }
        next_source = (folder / "lmms_eval/tasks/nextqa/utils.py").read_text("utf-8")
        old = {
            name: from_git(january, name, f"lmms_eval/tasks/{name}/utils.py", JANUARY)
            for name in ("videomme", "mlvu")
        }
        for module in old.values():
            module.__dict__["partial"] = lambda *a, **k: None
        ground = from_git(next_gqa, "eval_ground", "code/TempGQA/eval_ground.py")
        scores = from_git(hallucer, "evaluation_utils", "evaluations/evaluation_utils.py")
        cases = {
            "video_mme": video_mme(new["videomme"], old["videomme"], folder),
            "longvideobench": longvideobench(new["longvideobench"], folder),
            "mlvu": mlvu(new["mlvu"], old["mlvu"]),
            "mvbench": mvbench(new["mvbench"]),
            "tempcompass": tempcompass(new["tempcompass"]),
            "nextgqa": nextgqa(functions_of(next_source, "nextqa"), ground),
            "videohallucer": videohallucer(scores),
            "standard_errors": standard_errors(folder / "lmms_eval/api/metrics.py"),
        }
    OUT.write_text(json.dumps(cases, indent=0, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
