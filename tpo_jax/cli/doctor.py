"""`tpo doctor`: whether this machine can train, and what to do where it cannot."""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

from ml_collections import ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tpo_jax.cli.doctor_findings import FAIL, OK, WARN, Finding, Request
from tpo_jax.cli.main import EXIT_FAILED
from tpo_jax.cli.progress import stage_progress

STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red"}
COLUMNS_IN_A_FILE = 160
REINSTALL = "install tpo_jax again: pip install . (with [tpu] or [cuda] where there is one)"
# By name, in their order. A module is imported when its first check runs: what cannot be imported
# fails that check and no other.
CHECKS = {
    "versions": "doctor_machine:check_versions",
    "devices": "doctor_machine:check_devices",
    "libtpu": "doctor_machine:check_libtpu",
    "mesh": "doctor_machine:check_mesh",
    "write access": "doctor_machine:check_write_access",
    "clock": "doctor_machine:check_clock",
    "checkpoint": "doctor_model:check_checkpoint",
    "free disk": "doctor_model:check_free_disk",
    "video": "doctor_model:check_video",
    "training step": "doctor_model:check_training_step",
    "parity": "doctor_model:check_parity",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "--run-dir",
        metavar="FOLDER",
        default=Request.run_dir,
        help="where runs would be written, local or gs:// (default: %(default)s)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        default="",
        help="open this checkpoint too, and ask for disk space enough to train it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")
    parser.epilog = (
        "Looks at versions, devices, the mesh, libtpu, disk and clock; decodes a small video that "
        "it makes; trains the model that ships with tpo_jax for one step; and compares bf16 on "
        "this hardware with fp32 on the CPU, as `tpo verify --dtype bfloat16` does. Exit status: "
        "0, or 1 when something failed."
    )


def run(args: argparse.Namespace, config: ConfigDict | None) -> int:
    """Run the verb; the exit status is the verdict."""
    request = Request(run_dir=args.run_dir, checkpoint=args.checkpoint)
    findings = {}
    with stage_progress("doctor", len(CHECKS)) as update:
        for number, (name, place) in enumerate(CHECKS.items(), start=1):
            findings[name] = examine(place, request)
            update(number, name)
    failed = [name for name, finding in findings.items() if finding.status == FAIL]
    if args.json:
        rows = [{"check": name} | asdict(finding) for name, finding in findings.items()]
        print(json.dumps({"passed": not failed, "checks": rows}))
    else:
        console = Console(width=None if sys.stdout.isatty() else COLUMNS_IN_A_FILE)
        console.print(findings_table(findings))
        print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return EXIT_FAILED if failed else 0


def examine(place: str, request: Request) -> Finding:
    """What the check `module:function` of this folder found.

    One that raises, or whose module cannot be imported, has failed, and says so in a line.
    """
    module, _, name = place.partition(":")
    try:
        check = getattr(importlib.import_module(f"tpo_jax.cli.{module}"), name)
        return check(request)
    except ImportError as error:
        return Finding(status=FAIL, found=one_line(error), mend=REINSTALL)
    except Exception as error:
        return Finding(status=FAIL, found=one_line(error), mend="mend what it names, and run again")


def one_line(error: Exception) -> str:
    """An exception as a line: its type and the beginning of its message."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__


def findings_table(findings: Mapping[str, Finding]) -> Table:
    """A line for each check."""
    table = Table()
    for title in ("check", "", "found", "what to do"):
        table.add_column(title, overflow="fold", no_wrap=title == "")
    for name, finding in findings.items():
        status = f"[{STYLES[finding.status]}]{finding.status}"
        # Paths and messages may hold square brackets, which are no markup.
        table.add_row(name, status, escape(finding.found), escape(finding.mend))
    return table
