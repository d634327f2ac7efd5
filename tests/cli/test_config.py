"""Config files, overrides, and the way into dataclasses."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_dict

from tpo_jax.cli import config as config_module
from tpo_jax.cli.config import _apply_override, find_config, load_config, to_dataclass
from tpo_jax.errors import InputError

CONFIG_SOURCE = """
from ml_collections import ConfigDict, config_dict

def get_config():
    return ConfigDict({
        "out": "runs/demo",
        "train": {
            "steps": 100, "learning_rate": 3e-7, "resume": True, "betas": (0.9, 0.999),
            "save_at": (10, 20), "seed": config_dict.placeholder(int), "note": None,
        },
        "loss": {"beta": 0.1, "kind": "dpo"},
        "tags": ["a", "b"],
    })
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with configs/small.py, and an empty place for the shipped configs."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/small.py").write_text(CONFIG_SOURCE)
    (tmp_path / "shipped").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_module, "_shipped_configs", lambda: tmp_path / "shipped")
    return tmp_path


def load_error(*overrides: str, name: str = "small") -> str:
    with pytest.raises(InputError) as caught:
        load_config(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------- finding the file


@pytest.mark.parametrize("name", ["configs/small.py", "small.py", "small", "configs/small"])
def test_a_config_is_found_by_path_and_by_name(folder: Path, name: str) -> None:
    assert load_config(name).out == "runs/demo"
    (folder / "configs/small.py").rename(folder / "shipped/small.py")
    assert find_config(name) == folder / "shipped/small.py"


def test_an_absolute_path_stands_only_for_itself(folder: Path) -> None:
    assert find_config(str(folder / "configs/small.py")) == folder / "configs/small.py"
    with pytest.raises(InputError):
        find_config(str(folder / "small.py"))


def test_the_working_directory_comes_before_the_shipped_configs(folder: Path) -> None:
    (folder / "shipped/small.py").write_text(CONFIG_SOURCE.replace("runs/demo", "shipped"))
    assert load_config("small").out == "runs/demo"


def test_the_default_is_demo_and_a_folder_called_demo_does_not_hide_it(folder: Path) -> None:
    (folder / "demo").mkdir()
    (folder / "shipped/demo.py").write_text(CONFIG_SOURCE)
    assert load_config(None).train.steps == 100
    assert find_config("demo") == folder / "shipped/demo.py"


def test_a_missing_config_names_those_that_exist(folder: Path) -> None:
    (folder / "shipped/demo.py").write_text(CONFIG_SOURCE)
    (folder / "shipped/__init__.py").write_text("")
    message = load_error(name="dmo")
    assert message.startswith("config dmo: no such Python file")
    assert message.endswith("come with tpo_jax are: demo")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def get_config(:\n", "bad.py:1: syntax error"),
        ("x = 1\n", "defines no get_config()"),
        ("def get_config():\n    return {'a': 1}\n", "returned dict"),
        ("def get_config():\n    return missing_name\n", "bad.py:2: NameError"),
        ("import no_such_module\n", "bad.py:1: ModuleNotFoundError"),
        ("x = '\0'\n", "bad.py"),
    ],
)
def test_a_broken_file_is_one_line(folder: Path, source: str, expected: str) -> None:
    (folder / "bad.py").write_text(source)
    assert expected in load_error(name="bad.py")


def test_a_config_file_leaves_nothing_behind(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    load_config("small")
    assert sorted(folder.rglob("*")) == before


# -------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.learning_rate=1e-6", "learning_rate", 1e-6),
        ("train.learning_rate=1", "learning_rate", 1.0),
        ("train.steps=-7", "steps", -7),
        ("train.resume=false", "resume", False),
        ("train.resume=True", "resume", True),
        ("train.betas=0.5,1", "betas", (0.5, 1.0)),
        ("train.betas=(0.5, 0.6, 0.7)", "betas", (0.5, 0.6, 0.7)),
        ("train.save_at=5", "save_at", (5,)),
        ("train.save_at=()", "save_at", ()),
        ("train.seed=3", "seed", 3),
        ("train.seed=none", "seed", None),
        ("train.note=final", "note", "final"),
        ("train.note=2.5", "note", 2.5),
    ],
)
def test_an_override_keeps_the_type_of_the_key(
    folder: Path, override: str, key: str, value: Any
) -> None:
    found = load_config("small", [f"--config.{override}"]).train[key]
    assert found == value
    assert type(found) is type(value)


def test_strings_and_lists_can_be_overridden_and_the_last_override_holds(folder: Path) -> None:
    overrides = ["--config.out=1", "--config.out=a=b", "--config.tags=x, y"]
    config = load_config("small", overrides)
    assert config.out == "a=b"
    assert list(config.tags) == ["x", "y"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.learning_rate=fast", "expected float, found 'fast' (str)"),
        ("train.steps=1.5", "expected int, found '1.5' (str)"),
        ("train.steps=1e3", "expected int"),
        ("train.resume=1", "expected true or false"),
        ("train.save_at=1,x", "expected tuple[int, ...], found 'x' (str)"),
        ("train.save_at=1,true", "expected tuple[int, ...], found True (bool)"),
        ("train.seed=soon", "expected int"),
    ],
)
def test_a_wrong_type_names_the_key_and_the_type(
    folder: Path, override: str, expected: str
) -> None:
    message = load_error(f"--config.{override}")
    assert message.startswith(f"config key {override.partition('=')[0]}: ")
    assert expected in message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("train.learning_rte", "train.learning_rate"),
        ("trian.learning_rate", "train.learning_rate"),
        ("train.beta", "loss.beta"),
        ("learning_rate", "train.learning_rate"),
        ("train.step", "train.steps"),
        ("loss.beta.x", "loss.beta"),
    ],
)
def test_an_unknown_key_names_the_nearest(folder: Path, wrong: str, right: str) -> None:
    message = load_error(f"--config.{wrong}=1")
    assert message == f"unknown config key {wrong}; did you mean {right}?"


def test_a_section_cannot_be_set_and_an_override_needs_a_value(folder: Path) -> None:
    assert "set one of its keys: loss.beta, loss.kind" in load_error("--config.loss=1")
    assert "is written --config.<key>=<value>" in load_error("--config.loss.beta")
    assert "is written --config.<key>=<value>" in load_error("--config.=3")


def test_a_loaded_config_is_locked(folder: Path) -> None:
    with pytest.raises(AttributeError):
        load_config("small").train.new_key = 1


@given(st.integers())
def test_any_int_survives(value: int) -> None:
    config = ConfigDict({"a": {"b": 0}})
    _apply_override(config, f"--config.a.b={value}")
    assert config.a.b == value


@given(st.floats(allow_nan=False))
def test_any_float_survives(value: float) -> None:
    config = ConfigDict({"a": {"b": 0.0}})
    _apply_override(config, f"--config.a.b={value!r}")
    assert config.a.b == value


@given(st.lists(st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300)))
def test_any_tuple_of_numbers_survives(values: list[float]) -> None:
    config = ConfigDict({"a": (0.5,)})
    _apply_override(config, f"--config.a={tuple(values)!r}")
    assert config.a == tuple(values)


@given(st.text())
def test_no_text_is_more_than_an_input_error(text: str) -> None:
    for value in (1, 1.0, True, "s", (1, 2), ["s"], None, (), config_dict.placeholder(float)):
        config = ConfigDict({"a": value})
        try:
            _apply_override(config, f"--config.a={text}")
        except InputError:
            continue
        assert config.a == text or value != "s"


# ------------------------------------------------------------------------------- dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    learning_rate: float
    steps: int = 10
    resume: bool = False
    kind: Literal["dpo", "ipo"] = "dpo"
    folder: Path = Path("runs")
    save_at: tuple[int, ...] = ()
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    adam: Adam = dataclasses.field(default_factory=Adam)
    ema: Adam | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, found {self.steps}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    beta: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    train: Train
    loss: Loss = Loss()


def convert_error(values: dict[str, Any], where: str = "train", cls: type = Train) -> str:
    with pytest.raises(InputError) as caught:
        to_dataclass(cls, ConfigDict(values), where)
    return str(caught.value)


def test_a_section_becomes_a_dataclass() -> None:
    section = ConfigDict(
        {
            "learning_rate": 1,
            "folder": "out",
            "save_at": [1, 2],
            "weights": {"dpo": 1},
            "adam": {"betas": [0.8, 1]},
            "ema": None,
        }
    )
    made = to_dataclass(Train, section, where="train")
    assert made == Train(
        learning_rate=1.0,
        folder=Path("out"),
        save_at=(1, 2),
        weights={"dpo": 1.0},
        adam=Adam(betas=(0.8, 1.0)),
    )
    assert type(made.learning_rate) is float
    assert type(made.adam.betas[1]) is float
    section.ema = ConfigDict({"clip": 2.5})
    assert to_dataclass(Train, section, where="train").ema == Adam(clip=2.5)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"learning_rate": "1e-6"}, "train.learning_rate: expected float, found '1e-6' (str)"),
        ({"learning_rate": True}, "train.learning_rate: expected float, found True (bool)"),
        ({"steps": 1.0}, "train.steps: expected int, found 1.0 (float)"),
        ({"steps": True}, "train.steps: expected int"),
        ({"resume": 1}, "train.resume: expected bool"),
        ({"kind": "kto"}, "train.kind: expected one of 'dpo', 'ipo', found 'kto' (str)"),
        ({"save_at": ("a",)}, "train.save_at: expected tuple[int, ...], found 'a' (str)"),
        ({"weights": {"a": "b"}}, "train.weights.a: expected float, found 'b' (str)"),
        ({"adam": {"betas": (1.0,)}}, "train.adam.betas: expected tuple[float, float]"),
        ({"adam": {"clip": "no"}}, "train.adam.clip: expected float | None, found 'no' (str)"),
        ({"adam": 3}, "train.adam: expected a section, found 3 (int)"),
        ({"adam": {"clp": 1.0}}, "train.adam.clp; did you mean train.adam.clip?"),
        ({"step": 3}, "unknown config key train.step; did you mean train.steps?"),
        ({"steps": -1}, "config section train: steps must be at least 0, found -1"),
    ],
)
def test_what_a_dataclass_refuses(extra: dict[str, Any], expected: str) -> None:
    assert expected in convert_error({"learning_rate": 1e-6, **extra})


def test_a_missing_key_and_a_key_in_the_wrong_section() -> None:
    assert "config key train.learning_rate is missing" in convert_error({})
    message = convert_error({"train": {"learning_rate": 1.0, "beta": 1.0}}, where="", cls=Run)
    assert message == "unknown config key train.beta; did you mean loss.beta?"


def test_an_annotation_that_cannot_be_checked_is_a_bug_not_an_input_error() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Odd:
        things: set[int]

    with pytest.raises(TypeError, match="annotation"):
        to_dataclass(Odd, {"things": 1})
