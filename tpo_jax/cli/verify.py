"""`tpo verify CASE`: our numbers beside those that another implementation gave."""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from data_pipelines.batches import fitting_shape, make_row, stack
from data_pipelines.prompts import Prompt
from tpo_jax.cli.main import EXIT_FAILED
from tpo_jax.interop.golden_case import VIDEO_PLACE, GoldenCase, read_case
from tpo_jax.interop.verify import (
    BF16_LOGITS_BOUND,
    LOGITS,
    Comparison,
    LayerError,
    compare,
    measure,
    measure_layers,
)

DTYPES = ("float32", "bfloat16")
# Wide enough for the longest tensor name and the numbers, where there is no terminal to ask.
COLUMNS_IN_A_FILE = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("case", metavar="CASE", help="folder of a golden case")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="float32 (default): against the recorded numbers; bfloat16: against fp32 on the CPU, "
        "layer by layer",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the table"
    )
    parser.epilog = (
        "Exit status: 0 when every number is inside its tolerance, 1 when one is not, 2 when the "
        "folder is no whole case."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> int:
    """Run the verb; the exit status is the verdict."""
    case = read_case(Path(args.case))
    batch = case_batch(case)
    if args.dtype == "float32":
        comparisons = compare(case, *measure(case, batch))
        passed = all(row.passed for row in comparisons)
        rows: list[dict[str, Any]] = [
            dataclasses.asdict(row) | {"passed": row.passed} for row in comparisons
        ]
        table, verdict = comparison_table(comparisons), comparison_verdict(comparisons)
    else:
        errors = measure_layers(case, batch, jnp.bfloat16)
        found = logits_error(errors)
        passed = found < BF16_LOGITS_BOUND
        rows = [dataclasses.asdict(row) for row in errors]
        table = layer_table(errors)
        verdict = (
            f"logits: {found:.2%} relative RMS error, "
            f"{'inside' if passed else 'NOT inside'} the bound of {BF16_LOGITS_BOUND:.0%}"
        )
    about = {
        "case": str(case.folder),
        "dtype": args.dtype,
        "device": jax.devices()[0].device_kind,
        "passed": passed,
        "verdict": verdict,
    }
    if args.json:
        print(json.dumps(about | {"rows": [_finite(row) for row in rows]}, allow_nan=False))
    else:
        table.title = f"{case.folder}, {args.dtype} on {about['device']}"
        Console(width=None if sys.stdout.isatty() else COLUMNS_IN_A_FILE).print(table)
        print(verdict)
    return 0 if passed else EXIT_FAILED


def case_batch(case: GoldenCase) -> dict[str, np.ndarray]:
    """The case's pair as training sees it: one row of prompt, chosen and rejected, and frames."""
    visual_tokens = case.config.tokens_per_video(len(case.frames_FHWC))
    prompt = _prompt(case.prompt, visual_tokens)
    answers = [case.chosen.tolist(), case.rejected.tolist()]
    shape = fitting_shape([len(prompt.tokens)], [len(answer) for answer in answers])
    return stack([make_row(prompt, answers, shape)]) | {"frames": case.frames_FHWC[None]}


def _prompt(ids: np.ndarray, visual_tokens: int) -> Prompt:
    place = int(np.flatnonzero(ids == VIDEO_PLACE)[0])
    visual = np.arange(visual_tokens, dtype=np.int32)
    text = np.full_like(ids, -1)
    return Prompt(
        tokens=np.concatenate([ids[:place], np.zeros_like(visual), ids[place + 1 :]]),
        visual_index=np.concatenate([text[:place], visual, text[place + 1 :]]),
    )


def comparison_table(rows: Sequence[Comparison]) -> Table:
    """A line for each output, and for each gradient under the tensor's name."""
    table = Table(caption="relative: as a part of the largest recorded entry of the same array")
    table.add_column("output, or gradient of", overflow="fold")
    for column in ("max abs", "relative", "tolerance"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.max_abs:.1e}",
            f"{row.relative:.1e}",
            f"{row.tolerance:.1e} {'abs' if row.of == 'absolute' else 'rel'}",
            "pass" if row.passed else "FAIL",
            row.note,
            style=None if row.passed else "bold red",
        )
    return table


def comparison_verdict(rows: Sequence[Comparison]) -> str:
    """How many are inside their tolerances, and which is the first that is not."""
    outside = [row.name for row in rows if not row.passed]
    if not outside:
        return f"all {len(rows)} inside their tolerances"
    return f"{len(outside)} of {len(rows)} OUTSIDE their tolerances, first {outside[0]}"


def layer_table(rows: Sequence[LayerError]) -> Table:
    """A line for each place of the model, in the order in which they are computed."""
    table = Table(caption="against fp32 on the CPU; relative: max abs over the largest fp32 entry")
    table.add_column("")
    for column in ("max abs", "relative", "RMS relative"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = row.max_abs, row.relative, row.rms_relative
        table.add_row(row.name, *(f"{number:.1e}" for number in numbers))
    return table


def logits_error(rows: Sequence[LayerError]) -> float:
    """Relative RMS error of the logits."""
    return next(row.rms_relative for row in rows if row.name == LOGITS)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN and no infinity: null stands for both."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
