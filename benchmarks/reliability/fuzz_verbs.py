"""What each case of `fuzz.py` damages, and the verb that then reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

RUN = ("run/frames", "run/pairs", "run/reference")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of input and a verb that reads it.

    Attributes:
      kind: of input, as it is counted.
      verb: and its arguments; "{case}" is the folder of the copy, "{damaged}" the damaged file.
      copies: what of the base the verb reads.
      damaged: patterns of files below the copy, of which one is damaged.
      makes: what the verb would leave: folders with a manifest, or files.
      has_config: whether the run's config goes with it.
      weight: how often it is drawn.
    """

    kind: str
    verb: Sequence[str]
    copies: Sequence[str]
    damaged: Sequence[str]
    makes: Sequence[str] = ()
    has_config: bool = True
    weight: float = 1.0


ASK = ("ask", "{damaged}", "What?", "--frames=2", "--tokens=2")
ABOUT = ("ask", "{case}/videos/videos_0000.mp4", "What?", "--frames=2", "--tokens=2")
EVAL = ("eval", "--tasks=own", "--set=frames=2", "--set=max_new_tokens=2", "--config.workers=1")
ON_OWN = (*EVAL, "--data={case}/own.jsonl", "--videos={case}/videos", "--out={case}/out")
STORE = ("run/frames/*",)
PAIRS = ("run/pairs/*",)
EXPORTED = ("run/export/*",)
IMPORTED = ("imported/**/*",)
TRAINED = ("run/train/**/*",)

TARGETS = (
    # Videos.
    Target(kind="video", verb=("frames",), copies=("videos",), damaged=("videos/*",),
           makes=("run/frames",), weight=8),
    Target(kind="video", verb=("frames", "--dry-run"), copies=("videos",), damaged=("videos/*",),
           weight=3),
    Target(kind="video", verb=ASK, copies=("videos",), damaged=("videos/*",), has_config=False,
           weight=5),
    Target(kind="video", verb=ON_OWN, copies=("videos", "own.jsonl"), damaged=("videos/*",),
           makes=("out/own",), has_config=False, weight=2),
    Target(kind="video", verb=("pairs", "{case}/pair_files/llava_next.json",
           "--videos={case}/videos"), copies=("videos", "pair_files"),
           damaged=("videos/*",), has_config=False),
    # Files of pairs.
    Target(kind="pairs", verb=("pairs", "{damaged}"), copies=("pair_files",),
           damaged=("pair_files/*",), has_config=False, weight=10),
    Target(kind="pairs", verb=("pairs", "{damaged}", "--videos={case}/run/frames", "--to=ours",
           "--out={case}/out.jsonl", "--html={case}/out.html"), copies=("pair_files", "run/frames"),
           damaged=("pair_files/*",), makes=("out.jsonl", "out.html"), has_config=False, weight=10),
    Target(kind="pairs", verb=("pairs", "{damaged}", "--videos={case}/run/frames", "--to=ms_swift",
           "--out={case}/out.jsonl"), copies=("pair_files", "run/frames"),
           damaged=("pair_files/*",), makes=("out.jsonl",), has_config=False, weight=6),
    Target(kind="pairs", verb=("pairs", "{case}/pair_files/ours.jsonl", "--without={damaged}"),
           copies=("pair_files",), damaged=("pair_files/answers.jsonl",), has_config=False),
    Target(kind="pairs", verb=("reference",), copies=RUN[:2], damaged=PAIRS,
           makes=("run/reference",), weight=4),
    Target(kind="pairs", verb=("train",), copies=RUN, damaged=PAIRS,
           makes=("run/train",), weight=4),
    Target(kind="pairs", verb=("train", "--config.loss.dpo_weight=0.0",
           '--config.mixture=("{damaged}",)'), copies=(*RUN, "pair_files"),
           damaged=("pair_files/ours.jsonl",), makes=("run/train",), weight=4),
    Target(kind="questions", verb=("curate", "--answers={damaged}"),
           copies=("run/frames", "pair_files", "videos"), damaged=("pair_files/answers.jsonl",),
           makes=("run/pairs",), weight=3),
    Target(kind="questions", verb=("curate", "--config.curate.questions=file",
           "--config.curate.questions_file={damaged}"), copies=("run/frames", "pair_files"),
           damaged=("pair_files/answers.jsonl",), makes=("run/pairs",), weight=3),
    # Frame stores.
    Target(kind="frame store", verb=("curate",), copies=("run/frames",), damaged=STORE,
           makes=("run/pairs",), weight=3),
    Target(kind="frame store", verb=("curate", "--dry-run"), copies=("run/frames",), damaged=STORE,
           weight=2),
    Target(kind="frame store", verb=("reference",), copies=RUN[:2], damaged=STORE,
           makes=("run/reference",), weight=3),
    Target(kind="frame store", verb=("train",), copies=RUN, damaged=STORE, makes=("run/train",),
           weight=3),
    Target(kind="frame store", verb=("frames",), copies=("videos", "run/frames"), damaged=STORE,
           weight=2),
    Target(kind="frame store", verb=("frames", "--check"), copies=("run/frames",), damaged=STORE,
           weight=3),
    Target(kind="frame store", verb=("pairs", "{case}/pair_files/ours.jsonl",
           "--videos={case}/run/frames", "--html={case}/out.html"),
           copies=("pair_files", "run/frames"), damaged=STORE, makes=("out.html",),
           has_config=False, weight=3),
    Target(kind="frame store", verb=("report",), copies=("run", "truth.json"), damaged=STORE),
    # Checkpoints in the PyTorch layout.
    Target(kind="checkpoint", verb=(*ABOUT, "--checkpoint={case}/run/export"),
           copies=("videos", "run/export"), damaged=EXPORTED, has_config=False, weight=6),
    Target(kind="checkpoint", verb=("import", "{case}/run/export", "{case}/out"),
           copies=("run/export",), damaged=EXPORTED, makes=("out",), has_config=False, weight=3),
    Target(kind="checkpoint", verb=("export", "{case}/out", "--checkpoint={case}/run/export"),
           copies=("run/export",), damaged=EXPORTED, makes=("out",), has_config=False, weight=4),
    Target(kind="checkpoint", verb=("export", "{case}/out", "--checkpoint={case}/run/export",
           "--layout=onevision", "--accept-other-newlines"), copies=("run/export",),
           damaged=EXPORTED, makes=("out",), has_config=False, weight=3),
    Target(kind="checkpoint", verb=("doctor", "--checkpoint={case}/run/export",
           "--run-dir={case}"), copies=("run/export",), damaged=EXPORTED, has_config=False,
           weight=3),
    Target(kind="checkpoint", verb=("pairs", "{case}/pair_files/ours.jsonl",
           "--checkpoint={case}/run/export"), copies=("pair_files", "run/export"),
           damaged=("run/export/tokenizer.json", "run/export/config.json"), has_config=False,
           weight=2),
    Target(kind="checkpoint", verb=("frames", "--config.checkpoint={case}/run/export"),
           copies=("videos", "run/export"), damaged=("run/export/config.json",),
           makes=("run/frames",), weight=2),
    Target(kind="checkpoint", verb=("plan", "--config.checkpoint={case}/run/export",
           "--topology=v5p-0"), copies=("run/export",), damaged=("run/export/config.json",)),
    # Checkpoints in Orbax.
    Target(kind="imported", verb=(*ABOUT, "--checkpoint={case}/imported"),
           copies=("videos", "imported"), damaged=IMPORTED, has_config=False, weight=5),
    Target(kind="imported", verb=("export", "{case}/out", "--checkpoint={case}/imported"),
           copies=("imported",), damaged=IMPORTED, makes=("out",), has_config=False, weight=4),
    Target(kind="trained", verb=("export",), copies=("run/train",), damaged=TRAINED,
           makes=("run/export",), weight=6),
    Target(kind="trained", verb=("eval",), copies=("run/train", "run/eval_frames", "truth.json",
           "videos"), damaged=TRAINED, makes=("run/eval",), weight=2),
    Target(kind="trained", verb=("train",), copies=(*RUN, "run/train"), damaged=TRAINED, weight=2),
    Target(kind="unfinished run", verb=("train",), copies=(*RUN, "run/train.partial"),
           damaged=("run/train.partial/**/*",), makes=("run/train",), weight=3),
    # Reference tables and manifests.
    Target(kind="reference", verb=("train",), copies=RUN, damaged=("run/reference/*",),
           makes=("run/train",), weight=10),
    Target(kind="manifest", verb=("report",), copies=("run", "truth.json"),
           damaged=("run/*/manifest.json", "run/train/metrics.jsonl"), weight=8),
    Target(kind="manifest", verb=("export",), copies=("run/train", "run/export"),
           damaged=("run/*/manifest.json",), weight=2),
    # Scoring.
    Target(kind="truth", verb=("eval",), copies=("run", "truth.json", "videos"),
           damaged=("truth.json",), weight=2),
    Target(kind="answers", verb=("eval", "--counterfactual=removed"), copies=("run", "truth.json",
           "videos"), damaged=("run/eval/*",), makes=("run/eval_removed",), weight=3),
    Target(kind="task table", verb=ON_OWN, copies=("videos", "own.jsonl"), damaged=("own.jsonl",),
           makes=("out/own",), has_config=False, weight=4),
    Target(kind="task table", verb=("eval", "--tasks=own", "--from-logs={case}/log.jsonl",
           "--data={case}/own.jsonl", "--out={case}/out"), copies=("own.jsonl", "log.jsonl"),
           damaged=("own.jsonl",), makes=("out/own",), has_config=False, weight=5),
    Target(kind="log", verb=("eval", "--tasks=own", "--from-logs={case}/log.jsonl",
           "--data={case}/own.jsonl", "--out={case}/out"), copies=("own.jsonl", "log.jsonl"),
           damaged=("log.jsonl",), makes=("out/own",), has_config=False, weight=8),
    Target(kind="result", verb=("eval", "--compare", "{case}/first", "{case}/second",
           "--html={case}/out.html"), copies=("first", "second"),
           damaged=("first/own/*", "second/own/*"), makes=("out.html",), has_config=False,
           weight=10),
    Target(kind="result", verb=("eval", "--tasks=own", "--from-logs={case}/log.jsonl",
           "--data={case}/own.jsonl", "--out={case}/first"), copies=("own.jsonl", "log.jsonl",
           "first"), damaged=("first/own/*", "first/result.json"), has_config=False, weight=3),
    Target(kind="golden case", verb=("verify", "{case}/golden"), copies=("golden",),
           damaged=("golden/*",), has_config=False, weight=6),
    # Configs: damaged are the file, or values given on the command line.
    Target(kind="config file", verb=("frames", "--dry-run", "--config={damaged}",
           "--config.workers=1"),
           copies=("videos",), damaged=("config.py",), has_config=False, weight=6),
    Target(kind="config file", verb=("curate", "--dry-run", "--config={damaged}",
           "--config.workers=1"),
           copies=("run/frames",), damaged=("config.py",), has_config=False, weight=4),
    Target(kind="config value", verb=("frames", "--dry-run"), copies=("videos",), damaged=(),
           weight=5),
    Target(kind="config value", verb=("curate", "--dry-run"), copies=("run/frames",), damaged=(),
           weight=5),
    Target(kind="config value", verb=("reference",), copies=RUN[:2], damaged=(),
           makes=("run/reference",), weight=3),
    Target(kind="config value", verb=("train",), copies=RUN, damaged=(), makes=("run/train",),
           weight=4),
    Target(kind="config value", verb=("eval",), copies=("run", "truth.json", "videos"), damaged=(),
           weight=2),
    Target(kind="config value", verb=("export",), copies=("run/train",), damaged=(),
           makes=("run/export",), weight=2),
    Target(kind="config value", verb=("report",), copies=("run", "truth.json"), damaged=(),
           weight=2),
    Target(kind="config value", verb=("plan", "--topology=v5p-0"), copies=(), damaged=()),
)  # fmt: skip
