"""The command `tpo`: finds the verb, reads its options and config, and runs it.

A verb is a module `tpo_jax/cli/<verb>.py` with two functions:

    def add_arguments(parser: argparse.ArgumentParser) -> None
    def run(args: argparse.Namespace, config: ConfigDict | None) -> int | None

`run` returns the exit status; None means 0. Only a verb that gives a verdict returns another, 1 for
a bad one: that is no error, the verb did what it was asked to.

It is imported only when it is asked for, so that `tpo --help` does not wait for JAX.
"""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import absl.logging

from data_pipelines.errors import InputError as DataInputError
from tpo_jax import __version__, termination
from tpo_jax.bucket import fault_of_bucket
from tpo_jax.disk import fault_of_disk
from tpo_jax.errors import InputError, did_you_mean

EXIT_FAILED = 1
EXIT_INPUT_ERROR = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: its module, one line of help, and whether it reads a config."""

    module: str
    summary: str
    takes_config: bool = True


VERBS: dict[str, Verb] = {
    "demo": Verb(
        module="tpo_jax.cli.demo", summary="run the whole loop on small synthetic videos, on a CPU"
    ),
    "frames": Verb(
        module="tpo_jax.cli.frames", summary="decode videos once into a store of sampled frames"
    ),
    "curate": Verb(
        module="tpo_jax.cli.curate", summary="make preference pairs out of the model itself"
    ),
    "pairs": Verb(
        module="tpo_jax.cli.pairs",
        summary="look into a file of pairs, in our or others' formats, and convert it",
        takes_config=False,
    ),
    "reference": Verb(
        module="tpo_jax.cli.reference",
        summary="compute the reference model's log-probs of every pair",
    ),
    "train": Verb(
        module="tpo_jax.cli.train", summary="train the policy on the pairs; continues a killed run"
    ),
    "loop": Verb(
        module="tpo_jax.cli.loop",
        summary="rounds of self-training: the policy of one round curates the next",
    ),
    "plan": Verb(
        module="tpo_jax.cli.plan",
        summary="say what a step takes on TPU slices: memory, time and cost, with no TPU",
    ),
    "eval": Verb(module="tpo_jax.cli.eval", summary="score a model on a benchmark"),
    "import": Verb(
        module="tpo_jax.cli.import_checkpoint",
        summary="read a PyTorch checkpoint strictly, and store it for a pod",
        takes_config=False,
    ),
    "export": Verb(
        module="tpo_jax.cli.export", summary="write a checkpoint as safetensors for PyTorch"
    ),
    "report": Verb(
        module="tpo_jax.cli.report", summary="write pages that show the pairs and the results"
    ),
    "verify": Verb(
        module="tpo_jax.cli.verify",
        summary="compare our numbers with those recorded of another implementation",
        takes_config=False,
    ),
    "doctor": Verb(
        module="tpo_jax.cli.doctor",
        summary="say whether this machine can train, and what to do where it cannot",
        takes_config=False,
    ),
    "ask": Verb(module="tpo_jax.cli.ask", summary="ask a model about a video", takes_config=False),
    "launch": Verb(
        module="tpo_jax.cli.launch",
        summary="run a verb on this host of several, and say what ended it",
        takes_config=False,
    ),
    "demo-base": Verb(
        module="tpo_jax.cli.demo_base",
        summary="train the small base model that the demo starts from",
        takes_config=False,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tpo`.

    Args:
      argv: the arguments after the command's name; None means those of this process.

    Returns:
      The exit status: 0; 1 after a bad verdict (`tpo verify`, `tpo doctor`); 2 after something the
      user can mend (one line on stderr, no traceback); 130 after Ctrl-C, and 143 after SIGTERM. Any
      other exception is a bug and keeps its traceback.

    Raises:
      SystemExit: with status 0, after --help or --version.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = "tpo"
    try:
        if argv is None:
            termination.install()
        if not arguments or arguments[0].startswith("-"):
            _print_help(arguments)
        name, *rest = arguments
        if name not in VERBS:
            raise InputError(f"unknown verb {name}{did_you_mean(name, VERBS)}")
        command = f"tpo {name}"
        return _run_verb(command, VERBS[name], rest)
    except (InputError, DataInputError) as error:
        print(f"{command}: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return EXIT_INPUT_ERROR
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted; {termination.GOES_ON}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except termination.Terminated as told:
        saved = f"{told}; " if str(told) else ""
        print(f"{command}: terminated; {saved}{termination.GOES_ON}", file=sys.stderr, flush=True)
        return termination.EXIT_TERMINATED


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, and which names the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help lists the options)")

    def parse(self, arguments: Sequence[str], takes_config: bool) -> argparse.Namespace:
        """Like parse_args, with a hint in the error about an argument that is not known."""
        args, unknown = self.parse_known_args(arguments)
        for argument in unknown:
            if argument.startswith("-"):
                raise InputError(f"unknown option {argument}{self._hint(argument, takes_config)}")
        if unknown:
            self.error(f"unexpected argument {unknown[0]}")
        return args

    def _hint(self, argument: str, takes_config: bool) -> str:
        option, equals, value = argument.partition("=")
        head, dot, key = option.partition(".")
        if dot and takes_config:
            # --confg.train.steps=5 and --train.steps=5 both mean --config.train.steps=5.
            misspelled = difflib.get_close_matches(head, ["--config"], cutoff=0.7)
            key = key if misspelled else option.lstrip("-")
            return f"; did you mean --config.{key}{equals}{value}?"
        return did_you_mean(
            option, [name for name in self._option_string_actions if name[:2] == "--"]
        )


def _print_help(arguments: Sequence[str]) -> NoReturn:
    verbs = "\n".join(f"  {name:<10} {verb.summary}" for name, verb in VERBS.items())
    parser = _Parser(
        prog="tpo",
        usage="tpo VERB [options]",
        description="Temporal preference optimization of video language models, in JAX.",
        epilog=f"verbs:\n{verbs}\n\n`tpo VERB --help` shows the options of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tpo_jax {__version__}")
    parser.parse(arguments or ["--help"], takes_config=False)
    parser.error("the verb comes first")


def _run_verb(command: str, verb: Verb, arguments: Sequence[str]) -> int:
    module = importlib.import_module(verb.module)
    parser = _Parser(prog=command, description=f"{verb.summary}.", allow_abbrev=False)
    module.add_arguments(parser)
    config = None
    overrides: list[str] = []
    if verb.takes_config:
        # Imported here: ml_collections is not needed to print help.
        from tpo_jax.cli.config import DEFAULT_CONFIG, load_config

        options = parser.add_argument_group("config")
        options.add_argument(
            "--config",
            metavar="FILE",
            default=DEFAULT_CONFIG,
            help="config file, or the name of one that comes with tpo_jax (default: %(default)s)",
        )
        options.add_argument(
            "--config.KEY",
            dest=argparse.SUPPRESS,
            metavar="VALUE",
            help="set one value of the config, for example --config.train.steps=100",
        )
        overrides, arguments = _split_overrides(arguments)
    args = parser.parse(arguments, verb.takes_config)
    # Orbax tells a lot of itself that is no news to a user.
    absl.logging.set_verbosity(absl.logging.ERROR)
    if verb.takes_config:
        config = load_config(args.config, overrides)
    try:
        return module.run(args, config) or 0
    except Exception as error:
        # Any stage may find that a disk or a bucket refuses; anything else is a bug.
        fault = fault_of_bucket(error)
        if fault is None and isinstance(error, OSError):
            run_dir = Path(config.get("run_dir", ".") if config else ".").absolute()
            fault = fault_of_disk(error, run_dir)
        if fault is None:
            raise
        raise InputError(fault) from error


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the overrides, each as --config.KEY=VALUE, and the other arguments."""
    overrides, others = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--config."):
            others.append(argument)
        elif "=" in argument:
            overrides.append(argument)
        else:
            value = next(remaining, "--")
            if value.startswith("--"):
                raise InputError(f"{argument} needs a value: {argument}=VALUE")
            overrides.append(f"{argument}={value}")
    return overrides, others


if __name__ == "__main__":
    sys.exit(main())
