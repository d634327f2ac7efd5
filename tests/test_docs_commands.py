"""Every `tpo` command in the docs names a verb, options and config keys that exist.

Nothing is run. The first test reads this repository's pages; the others show that each kind of
mistake is found.
"""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tpo_jax.cli.config import load_config
from tpo_jax.cli.main import VERBS
from tpo_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "configs/launch").glob("*.yaml")]
)
INLINE = re.compile(r"(?<!`)`(tpo\s[^`]+)`")
# What ends a command of a shell line.
ENDS = {"--", ";", "|", "||", "&", "&&", ">", ")"}


def commands(text: str, *, is_page: bool = True) -> Iterator[str]:
    """The commands of a page: indented lines, with what continues them, and inline code."""
    if is_page:
        for match in INLINE.finditer(text):
            yield " ".join(match[1].split())
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("    ") and re.search(r"\btpo [a-z]", line):
            yield line


def calls(command: str) -> Iterator[list[str]]:
    """The words after each `tpo` of a shell line, up to where that call ends."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe of prose
        words = command.split()
    for place, word in enumerate(words):
        # What stands behind `tpo launch --` is a call too.
        if word == "tpo" or (word == "--" and "launch" in words[:place]):
            end = next((i for i in range(place + 1, len(words)) if words[i] in ENDS), len(words))
            yield words[place + 1 : end]


@cache
def options_of(verb: str) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser(prog="tpo", allow_abbrev=False)
    importlib.import_module(VERBS[verb].module).add_arguments(parser)
    return dict(parser._option_string_actions)


@cache
def keys_of(config: str) -> set[str]:
    """Dotted keys of a config that ships; those of the demo for a name that stands for your own."""
    try:
        loaded = load_config(config)
    except InputError:
        assert Path(config).stem.isupper(), f"there is no config {config}"
        loaded = load_config("demo")

    def dotted(section: dict, where: str) -> Iterator[str]:
        for name, value in section.items():
            yield where + name
            if isinstance(value, dict):
                yield from dotted(value, f"{where}{name}.")

    return set(dotted(loaded.to_dict(), ""))


def faults(words: list[str]) -> Iterator[str]:
    """What is wrong with a call, given as the words after `tpo`."""
    if not words or words[0].isupper() or words[0].startswith("-"):
        return
    verb, *rest = words
    if verb not in VERBS:
        yield f"no verb {verb}"
        return
    takes_config, options = VERBS[verb].takes_config, options_of(verb)
    config = next((w.partition("=")[2] for w in rest if w.startswith("--config=")), "demo")
    for number, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if not re.match(r"--?[a-z]", name):
            continue
        if name.startswith("--config.") and takes_config:
            if name.removeprefix("--config.") not in keys_of(config) | {"KEY", "*"}:
                yield f"config {config} has no key {name.removeprefix('--config.')}"
        elif name == "--config" and takes_config:
            keys_of(config)
        elif name not in options:
            yield f"tpo {verb} has no option {name}"
        elif options[name].choices:
            value = value if equals else " ".join(rest[number + 1 : number + 2])
            choices = list(map(str, options[name].choices or ()))
            if value and not value.isupper() and value not in choices:
                yield f"tpo {verb} {name} takes {', '.join(choices)}, not {value}"


def faults_of(text: str, *, is_page: bool = True) -> list[str]:
    return [
        f"{fault}: {command.strip()}"
        for command in commands(text, is_page=is_page)
        for call in calls(command)
        for fault in faults(call)
    ]


def test_the_commands_of_the_docs_exist() -> None:
    found = {
        str(page.relative_to(ROOT)): faults_of(
            page.read_text("utf-8"), is_page=page.suffix == ".md"
        )
        for page in PAGES
    }
    assert {page: said for page, said in found.items() if said} == {}


def test_commands_are_found_at_all() -> None:
    """A page whose commands were not recognised would pass everything."""
    for name, least in (("README.md", 20), ("docs/tpu_pods.md", 15), ("docs/performance.md", 5)):
        page = (ROOT / name).read_text("utf-8")
        assert sum(len(list(calls(one))) for one in commands(page)) >= least, name
    manifest = (ROOT / "configs/launch/v6e_8.yaml").read_text("utf-8")
    verbs = [call[0] for one in commands(manifest, is_page=False) for call in calls(one)]
    assert verbs == "doctor frames curate reference train export".split()


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("    tpo trian --config=demo", "no verb trian"),
        ("    tpo train --config=demo --resume", "tpo train has no option --resume"),
        ("see `tpo doctor\n--jsn`", "tpo doctor has no option --jsn"),
        ("    tpo train \\\n      --config.train.step=3", "config demo has no key train.step"),
        ("    A=1 tpo frames | tpo pairs --quick", "tpo pairs has no option --quick"),
        ("    tpo plan --step=evaluate", "not evaluate"),
        ("    tpo verify CASE --dtype int8", "not int8"),
        ("    tpo ask --config.seed=1", "tpo ask has no option --config.seed"),
        ("    tpo launch --hosts=2 -- train", "tpo launch has no option --hosts"),
        ("    tpo launch -- trian", "no verb trian"),
    ],
)
def test_each_mistake_is_found(page: str, fault: str) -> None:
    (said,) = faults_of(page)
    assert fault in said


def test_what_is_right_passes() -> None:
    page = """
    until tpo train --config=MINE.py --config.train.accumulate 8; do sleep 3; done   # it's fine
    tpo doctor --json || exit 2
`tpo VERB --help` and `tpo --help`, `tpo eval --config.run_dir=runs/other`
"""
    assert faults_of(page) == []
