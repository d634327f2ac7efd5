"""The memory of our preference step beside that of Tunix's DPO step, as the TPU compiler has it.

    python -m venv tunix; tunix/bin/pip install google-tunix==0.1.7 libtpu==0.0.42
    python -m benchmarks.speed.plan_vs_tunix --tunix-python=tunix/bin/python    # 10 minutes

Both steps are compiled from shapes for the same slice, with the same text-only work: the decoder of
Qwen2-7B, pairs of one prompt and two answers, FSDP over all chips, bf16 arithmetic, AdamW with
clipping. Prints a markdown table, a row as soon as it is known. Needs the TPU compiler
(`pip install .[plan]`) and no TPU.

Ours is the very step that `tpo plan` compiles, with zero frames and plain DPO: a pair is one row
[prompt, chosen, rejected], the state is fp32, and the log-probs of the reference come with the
batch. The frozen tower (0.4 B parameters) and the projector lie in its state all the same.

Tunix's is its own (`tunix_step.py`): a pair is two rows, and the reference runs before each step, a
program of its own whose row is here too. What it is given:

* its splash attention (`use_flash_attention`), with blocks of 1,024 tokens as by default, or the
  largest smaller ones that divide the row: splash refuses others;
* `RematConfig.DECODER`, the most that it can recompute (with `BLOCK` 52.8 GiB are alive at once);
* the state in bf16, and in fp32 (`param_dtype`); arithmetic is in bf16 both times;
* its constraints on activations, as on a TPU (without them 62.5 GiB).

Its trainer has no option to put both answers in one row, to loop over layers instead of unrolling
them, or to make logits of the answers alone. "Held" is what lies on each chip beside the program:
an attention mask of rows x T x T, which it makes for every batch and splash attention does not read
(counted in booleans; in the integers of its own tokenizer it is four times as much), and the
reference, in bf16. The figures in this text are of the bf16 state and the work by default, with
google-tunix 0.1.7 and libtpu 0.0.42.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn

from tpo_jax.attention import row_multiple
from tpo_jax.errors import InputError
from tpo_jax.models.checkpoint_config import model_config
from tpo_jax.models.presets import preset_json
from tpo_jax.parallel.mesh import MeshConfig
from tpo_jax.planning.compiler import VARIABLES, check_compiler, compile_in_child
from tpo_jax.planning.hardware import Slice, parse_slice
from tpo_jax.planning.work import Work, check_work, slice_mesh
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.optimizer import OptimizerConfig

GIB = 2**30
HEADER = (
    "| step | state | rows | alive, GiB | needs, GiB | held, GiB | lowered, s | compiled in, s |"
)
PEER_STEP = Path(__file__).with_name("tunix_step.py")
BLOCKS = (1024, 512, 256, 128)  # of Tunix's attention; the first is its default


@dataclass(frozen=True, kw_only=True)
class Row:
    """One program to compile."""

    name: str
    side: Literal["ours", "tunix"]
    part: Literal["step", "reference"] = "step"
    state: Literal["float32", "bfloat16"]


ROWS = (
    Row(name="ours", side="ours", state="float32"),
    Row(name="Tunix", side="tunix", state="float32"),
    Row(name="Tunix", side="tunix", state="bfloat16"),
    Row(name="Tunix, reference", side="tunix", part="reference", state="bfloat16"),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the compiler said of a program; bytes are those of one chip.

    Attributes:
      alive: the most that is in use at one moment; None if the program was refused.
      needs: arguments, results that are not arguments given back, and temporary memory.
      held: on the chip beside the program.
      lower, compile: seconds.
      versions: of what compiled it.
    """

    alive: int | None
    needs: int | None
    held: int
    lower: float
    compile: float
    versions: dict[str, str]


def our_work(arguments: argparse.Namespace) -> Work:
    """Our step without a frame."""
    config = model_config(preset_json("llava_video_7b"))
    language = replace(config.language, remat="full", layers=arguments.layers)
    return Work(
        config=replace(config, language=language),
        frames=0,
        prompt_tokens=arguments.prompt_tokens,
        answer_tokens=arguments.answer_tokens,
        pairs=arguments.pairs,
        loss=TPOLoss(beta=0.2, sft_weight=0.0),
        optimizer=OptimizerConfig(learning_rate=5e-7),
    )


def check_arguments(arguments: argparse.Namespace, work: Work, where: Slice) -> None:
    """Raises InputError, before the first compile, for what a user can mend."""
    check_compiler()
    mesh = slice_mesh(MeshConfig(fsdp=-1), where)
    check_work(work, mesh)
    if where.slices > 1:
        raise InputError(f"--topology={arguments.topology}: give one slice, as in v5p:4x4x4")
    for rows, tokens, multiple in (
        ("our", work.row_tokens, row_multiple("tpu", 1)),
        ("Tunix's", arguments.prompt_tokens + arguments.answer_tokens, BLOCKS[-1]),
    ):
        if tokens % multiple:
            raise InputError(
                f"--prompt-tokens, --answer-tokens: {rows} rows would have {tokens} tokens, which "
                f"is no multiple of {multiple}"
            )
    check_peer(arguments.tunix_python)


def check_peer(python: str) -> None:
    """Raises InputError when the interpreter is none, or lacks Tunix or the compiler."""
    ask = (
        "import importlib.util as u; print([n for n in ('tunix', 'libtpu') if not u.find_spec(n)])"
    )
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"--tunix-python={python}: {error.strerror}") from error
    if done.returncode or done.stdout.strip() != "[]":
        lacks = done.stdout.strip() or "an answer"
        raise InputError(
            f"--tunix-python={python}: lacks {lacks}; pip install google-tunix==0.1.7 libtpu there"
        )


def compile_ours(work: Work, where: Slice) -> Found:
    """As `tpo plan` does it."""
    compiled = compile_in_child(work, slice_mesh(MeshConfig(fsdp=-1), where), where)
    return Found(
        alive=compiled.sizes.get("alive"),
        needs=compiled.peak_bytes,
        held=0,
        lower=compiled.seconds["lower"],
        compile=compiled.seconds["compile"],
        versions={name: version(name) for name in ("jax", "libtpu")},
    )


def compile_peer(row: Row, arguments: argparse.Namespace, where: Slice) -> Found:
    """In a process of the other interpreter.

    Raises:
      RuntimeError: it failed for another reason than the size.
    """
    length = arguments.prompt_tokens + arguments.answer_tokens
    request = {
        "topology": where.topology_name,
        "layers": arguments.layers,
        "remat": "DECODER",
        "state": row.state,
        "part": row.part,
        "block": next(block for block in BLOCKS if length % block == 0),
        "pairs": arguments.pairs,
        "prompt_tokens": arguments.prompt_tokens,
        "answer_tokens": arguments.answer_tokens,
    }
    with tempfile.TemporaryDirectory(prefix="plan_vs_tunix_") as folder:
        result = Path(folder) / "result.json"
        done = subprocess.run(
            [arguments.tunix_python, str(PEER_STEP), str(result)],
            input=json.dumps(request),
            env=os.environ | VARIABLES,
            capture_output=True,
            text=True,
        )
        if not result.exists():
            raise RuntimeError(f"Tunix ended with {done.returncode}: {done.stderr.strip()[-3000:]}")
        said: dict[str, Any] = json.loads(result.read_text())
    refused = said["refused"] is not None
    if refused:
        print(said["refused"].splitlines()[0], file=sys.stderr)
    needs = ("argument", "output", "temp")
    return Found(
        alive=None if refused else said["alive"],
        needs=None if refused else sum(said[name] for name in needs) - said["alias"],
        held=sum(said["beside"].values()),
        lower=said["seconds"]["lower"],
        compile=said["seconds"]["compile"],
        versions=said["versions"],
    )


def cells(row: Row, found: Found, pairs: int) -> list[str]:
    """The cells of a row."""
    rows = pairs if row.side == "ours" else 2 * pairs
    sizes = [
        "refused" if size is None else f"{size / GIB:.1f}" for size in (found.alive, found.needs)
    ]
    held = f"{found.held / GIB:.1f}"
    return [
        row.name,
        row.state,
        str(rows),
        *sizes,
        held,
        f"{found.lower:.0f}",
        f"{found.compile:.0f}",
    ]


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends with status 2."""
        raise InputError(f"{message} (--help lists the options)")


def count(text: str) -> int:
    """A whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


def read_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--tunix-python", metavar="PATH", required=True, help="that has google-tunix and libtpu"
    )
    parser.add_argument("--topology", default="v5p:4x4x4", metavar="SLICE")
    parser.add_argument("--layers", type=count, default=28, metavar="N", help="of the decoder")
    parser.add_argument("--pairs", type=count, default=64, metavar="N", help="in a step")
    parser.add_argument("--prompt-tokens", type=count, default=27648, metavar="N")
    parser.add_argument("--answer-tokens", type=count, default=512, metavar="N")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name holds TEXT")
    return parser.parse_args(given)


def compare(arguments: argparse.Namespace) -> None:
    """Compiles the rows, one after another."""
    rows = [row for row in ROWS if arguments.only.lower() in f"{row.name}, {row.state}".lower()]
    if not rows:
        names = "; ".join(f"{row.name}, {row.state}" for row in ROWS)
        raise InputError(f"--only={arguments.only}: no row is named so; rows are {names}")
    where = parse_slice(arguments.topology)
    work = our_work(arguments)
    check_arguments(arguments, work, where)
    print(HEADER)
    print("|---" * (HEADER.count("|") - 1) + "|", flush=True)
    versions: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.side == "ours":
            found = compile_ours(work, where)
        else:
            found = compile_peer(row, arguments, where)
        versions[row.side] = found.versions
        print(f"| {' | '.join(cells(row, found, arguments.pairs))} |", flush=True)
    for side, numbers in versions.items():
        print(f"{side}: {', '.join(f'{name} {number}' for name, number in numbers.items())}")


def main() -> int:
    """Exit status 2, and one line, for a mistake of the user's."""
    try:
        compare(read_arguments())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
