"""The walls of the house: what may import what, checked by reading the sources.

Each checker takes the root of a source tree and returns one sentence per breach. The first test
runs them over this repository; the others show, on small fake trees, that each of them can fail.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tpo_jax", "data_pipelines", "benchmarks")
FOLDERS = (*PACKAGES, "configs", "tests")
MAX_LINES = 400

ACCELERATOR = ("jax", "jaxlib", "flax", "optax", "orbax", "tpo_jax")
# These rooms may import anything; for that reason no room of the host side may import them.
UNWALLED = ("benchmarks.speed", "benchmarks.reliability", "benchmarks.ablation")


@dataclass(frozen=True, kw_only=True)
class ImportWall:
    """Modules under `inside`, except those under `but_not`, never import `forbidden`."""

    inside: str
    but_not: tuple[str, ...] = ()
    forbidden: tuple[str, ...]


IMPORT_WALLS = (
    ImportWall(inside="data_pipelines", forbidden=(*ACCELERATOR, *UNWALLED)),
    ImportWall(inside="benchmarks", but_not=UNWALLED, forbidden=(*ACCELERATOR, *UNWALLED)),
    ImportWall(
        inside="tpo_jax",
        but_not=("tpo_jax.api", "tpo_jax.loading", "tpo_jax.cli"),
        forbidden=("data_pipelines", "benchmarks"),
    ),
    ImportWall(
        inside="tpo_jax.models",
        forbidden=tuple(
            f"tpo_jax.{room}"
            for room in ("training", "interop", "cli", "api", "loading", "generation", "preference")
        ),
    ),
)

PYTORCH_NAMES_LIVE_IN = "tpo_jax.interop.keys"
PYTORCH_NAME = re.compile(
    r"self_attn\.|mm_projector\b|vision_tower\.|lm_head\.weight|embed_tokens\.|model\.layers\."
    r"|_proj\.(weight|bias)|layernorm\.(weight|bias)"
)
EMPTY_NAME = re.compile(r"(^|_)(utils?|helpers?|misc|common)(_|$)")


# ----------------------------------------------------------------------- reading the sources


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file: its dotted module name, its path from the root and its syntax tree."""

    module: str
    path: Path
    is_package: bool
    tree: ast.Module
    lines: int


parsed = cache(ast.parse)  # for all checkers together, once a file


def read_sources(root: Path) -> dict[str, Source]:
    """Returns every Python file of the project's folders by module name."""
    sources = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text("utf-8")
            relative = path.relative_to(root)
            is_package = path.name == "__init__.py"
            parts = relative.parent.parts if is_package else relative.with_suffix("").parts
            module = ".".join(parts)
            sources[module] = Source(
                module=module,
                path=relative,
                is_package=is_package,
                tree=parsed(text, str(relative)),
                lines=len(text.splitlines()),
            )
    return sources


def is_inside(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def imported_names(source: Source, nodes: Iterator[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) of what the nodes import; `from a import b` is a.b."""
    package = source.module if source.is_package else source.module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            # importlib.import_module("jax"), __import__("jax"), pytest.importorskip("jax")
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            name = node.args[0]
            if (
                called in ("import_module", "__import__", "importorskip")
                and isinstance(name, ast.Constant)
                and isinstance(name.value, str)
            ):
                yield node.lineno, name.value


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes that run when the module is imported: no function bodies, no typing."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for branch in child.orelse:
                yield branch
                yield from run_at_import(branch)
            continue
        yield child
        yield from run_at_import(child)


def docstrings(tree: ast.Module) -> set[ast.expr]:
    """Returns the nodes of strings that stand alone as statements: docstrings."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


# ------------------------------------------------------------------------------- checkers


def broken_import_walls(root: Path) -> list[str]:
    """Imports that cross a wall, wherever in the file they stand."""
    return [
        f"{source.path}:{line} imports {name}: nothing in {wall.inside} may"
        for source in read_sources(root).values()
        for wall in IMPORT_WALLS
        if is_inside(source.module, (wall.inside,)) and not is_inside(source.module, wall.but_not)
        for line, name in imported_names(source, ast.walk(source.tree))
        if is_inside(name, wall.forbidden)
    ]


def strayed_pytorch_names(root: Path) -> list[str]:
    """String constants of tpo_jax outside interop/keys.py with a PyTorch parameter name in them."""
    found = []
    for source in read_sources(root).values():
        if not is_inside(source.module, ("tpo_jax",)) or source.module == PYTORCH_NAMES_LIVE_IN:
            continue
        prose = docstrings(source.tree)
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Constant) or node in prose:
                continue
            if isinstance(node.value, str) and PYTORCH_NAME.search(node.value):
                found.append(
                    f"{source.path}:{node.lineno} has the PyTorch name {node.value!r}: "
                    "those live in tpo_jax/interop/keys.py"
                )
    return found


def import_cycles(root: Path) -> list[str]:
    """Circles of module-level imports among the project's modules."""
    sources = read_sources(root)

    def project_module(name: str) -> str | None:
        # `from a.b import c` is the module a.b.c if there is one, and otherwise a name in a.b.
        while name and name not in sources:
            name = name.rpartition(".")[0]
        return name or None

    edges: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = imported_names(source, run_at_import(source.tree))
        found = {project_module(name) for _, name in names}
        edges[module] = {name for name in found if name} - {module}
    return [f"import cycle: {' -> '.join(cycle)}" for cycle in cycles(edges)]


def cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Returns one closed path through each knot that a depth-first walk of the graph meets."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            for target in sorted(edges[node]):
                visit(target, [*path, node])
            done.add(node)

    for node in sorted(edges):
        visit(node, [])
    return found


def long_files(root: Path) -> list[str]:
    """Files over MAX_LINES: a longer one is two rooms."""
    return [
        f"{source.path} has {source.lines} lines, more than {MAX_LINES}"
        for source in read_sources(root).values()
        if source.lines > MAX_LINES
    ]


def empty_names(root: Path) -> list[str]:
    """Files and folders whose name says nothing about what is inside."""
    return [
        f"{source.path}: a name with {part!r} in it says nothing; name what it holds"
        for source in read_sources(root).values()
        for part in source.module.split(".")
        if EMPTY_NAME.search(part.lower())
    ]


def folders_left_out(root: Path) -> list[str]:
    """Folders of the packages with Python files but no __init__.py: the wheel would lack them."""
    folders = {
        source.path.parent
        for source in read_sources(root).values()
        if source.path.parts[0] in PACKAGES
    }
    return [
        f"{folder} has no __init__.py, so the wheel leaves it out"
        for folder in sorted(folders)
        if not (root / folder / "__init__.py").exists()
    ]


CHECKERS = (
    broken_import_walls,
    strayed_pytorch_names,
    import_cycles,
    long_files,
    empty_names,
    folders_left_out,
)


# ---------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("checker", CHECKERS, ids=lambda checker: checker.__name__)
def test_the_walls_stand(checker: Callable[[Path], list[str]]) -> None:
    assert "tpo_jax.cli.main" in read_sources(ROOT)
    breaches = checker(ROOT)
    assert not breaches, "\n".join(breaches)


def build(root: Path, files: Mapping[str, str]) -> Path:
    """Writes a fake tree; each of its folders becomes a package."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").touch()
    return root


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data_pipelines/loader.py", "import jax"),
        ("data_pipelines/loader.py", "import jax.numpy as jnp"),
        ("data_pipelines/loader.py", "from flax import nnx"),
        ("data_pipelines/loader.py", "from orbax.checkpoint import args"),
        ("data_pipelines/loader.py", "def load():\n    import optax"),
        ("data_pipelines/loader.py", "import importlib\nimportlib.import_module('jax')"),
        ("data_pipelines/curation/judge.py", "from tpo_jax import errors"),
        ("data_pipelines/loader.py", "from benchmarks.speed import clock"),
        ("data_pipelines/loader.py", "from benchmarks import reliability"),
        ("benchmarks/tasks/mlvu.py", "import jax"),
        ("benchmarks/scoring.py", "import tpo_jax.models"),
        ("benchmarks/statistics.py", "from .speed import clock"),
        ("tpo_jax/training/loop.py", "from data_pipelines import loader"),
        ("tpo_jax/__init__.py", "import benchmarks.tasks"),
        ("tpo_jax/models/language.py", "from tpo_jax.training import step"),
        ("tpo_jax/models/language.py", "from tpo_jax import interop"),
        ("tpo_jax/models/language.py", "from ..cli import main"),
        ("tpo_jax/models/language.py", "from ..preference.losses import dpo"),
        ("tpo_jax/models/vision/tower.py", "from ...generation import engine"),
    ],
)
def test_a_broken_import_wall_is_seen(tmp_path: Path, name: str, text: str) -> None:
    (breach,) = broken_import_walls(build(tmp_path, {name: text}))
    assert breach.startswith(f"{name}:")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data_pipelines/loader.py", "import grain\nimport jaxtyping\nfrom . import video"),
        ("data_pipelines/loader.py", "'import jax'  # import jax"),
        ("benchmarks/tasks/mlvu.py", "from data_pipelines import pairs"),
        ("benchmarks/speed/step.py", "import jax\nfrom tpo_jax.training import step"),
        ("benchmarks/reliability/kill.py", "import tpo_jax"),
        ("tpo_jax/api.py", "import data_pipelines"),
        ("tpo_jax/cli/train.py", "from data_pipelines.loader import load\nimport benchmarks"),
        ("tpo_jax/models/language.py", "from tpo_jax.attention import attend\nimport jax"),
        ("tpo_jax/models/language.py", "from . import presets"),
    ],
)
def test_what_may_be_imported_passes(tmp_path: Path, name: str, text: str) -> None:
    assert broken_import_walls(build(tmp_path, {name: text})) == []


def test_strayed_pytorch_names_are_seen(tmp_path: Path) -> None:
    build(
        tmp_path,
        {
            "tpo_jax/interop/keys.py": "HEAD = 'lm_head.weight'",
            "tpo_jax/interop/reader.py": "KEY = f'model.layers.{3}.self_attn.q_proj.weight'",
            "tpo_jax/models/projector.py": "'''Their mm_projector.'''\nNAME = 'mm_projector_type'",
            "tpo_jax/models/vision.py": "PREFIX = 'vision_tower.'",
            "data_pipelines/notes.py": "NAME = 'mm_projector'",
        },
    )
    breaches = strayed_pytorch_names(tmp_path)
    places = {breach.partition(" ")[0] for breach in breaches}
    assert places == {"tpo_jax/interop/reader.py:1", "tpo_jax/models/vision.py:1"}


def test_import_cycles_are_seen(tmp_path: Path) -> None:
    build(
        tmp_path,
        {
            "tpo_jax/a.py": "from tpo_jax import b",
            "tpo_jax/b.py": "from .c.d import f",
            "tpo_jax/c/d.py": "class C:\n    import tpo_jax.a",
            "tpo_jax/e.py": "from tpo_jax.a import thing",
        },
    )
    assert import_cycles(tmp_path) == [
        "import cycle: tpo_jax.a -> tpo_jax.b -> tpo_jax.c.d -> tpo_jax.a"
    ]


def test_a_package_and_its_module_can_make_a_cycle(tmp_path: Path) -> None:
    build(tmp_path, {"tpo_jax/a.py": "from tpo_jax import load"})
    (tmp_path / "tpo_jax/__init__.py").write_text("from tpo_jax.a import load")
    assert import_cycles(tmp_path) == ["import cycle: tpo_jax -> tpo_jax.a -> tpo_jax"]


def test_imports_that_do_not_run_make_no_cycle(tmp_path: Path) -> None:
    typing_only = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tpo_jax import a"
    build(
        tmp_path,
        {
            "tpo_jax/a.py": "from tpo_jax import b, c",
            "tpo_jax/b.py": "def late():\n    from tpo_jax import a",
            "tpo_jax/c.py": typing_only,
        },
    )
    assert import_cycles(tmp_path) == []


def test_long_files_empty_names_and_missing_inits_are_seen(tmp_path: Path) -> None:
    names = ["tpo_jax/utils/a.py", "data_pipelines/text_helpers.py", "tests/common.py"]
    build(tmp_path, dict.fromkeys(names, ""))
    build(tmp_path, {"tpo_jax/commons.py": "", "tpo_jax/rotary_utilities.py": ""})
    build(tmp_path, {"configs/whole.py": "\n" * 400, "benchmarks/speed/long.py": "\n" * 401})
    assert long_files(tmp_path) == ["benchmarks/speed/long.py has 401 lines, more than 400"]
    named = {breach.partition(":")[0] for breach in empty_names(tmp_path)}
    assert named == {*names, "tpo_jax/utils/__init__.py"}

    assert folders_left_out(tmp_path) == []
    (tmp_path / "tpo_jax/utils/__init__.py").unlink()
    (breach,) = folders_left_out(tmp_path)
    assert breach.startswith("tpo_jax/utils has no __init__.py")
