"""From a config file and `--config.*` overrides to frozen dataclasses.

A config is an `ml_collections.ConfigDict` at the command line's edge only:

    config = load_config("demo", ["--config.train.learning_rate=1e-6"])
    settings = to_dataclass(TrainSettings, config.train, where="train")

Every mistake a user can make here ends as one `InputError` that names the dotted key. (This is not
`ml_collections.config_flags`: its errors name neither the nearest key nor the expected type.)
"""

import ast
import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from ml_collections import ConfigDict, FrozenConfigDict

import tpo_jax
from tpo_jax.errors import InputError, did_you_mean

DEFAULT_CONFIG = "configs/demo.py"
OVERRIDE_PREFIX = "--config."
SECTION_TYPES = (ConfigDict, FrozenConfigDict, Mapping)

T = TypeVar("T")


# ---------------------------------------------------------------------------------- public


def load_config(argv_config: str | None, overrides: Sequence[str] = ()) -> ConfigDict:
    """Runs a config file and applies overrides to what it returns.

    Args:
      argv_config: path of a Python file with `get_config()`, or the name of one: `configs/demo.py`,
        `demo.py` and `demo` all find the same file. The working directory is looked through first,
        then the configs that come with tpo_jax. None means `configs/demo.py`.
      overrides: `--config.<dotted key>=<value>`, applied in order. A value must have the type that
        the key has in the file; an int does for a float; tuples are written `1,2` or `(1, 2)`.

    Returns:
      The config, locked.

    Raises:
      InputError: the file is missing or broken, or an override names an unknown key or has a value
        of the wrong type.
    """
    path = find_config(argv_config if argv_config is not None else DEFAULT_CONFIG)
    config = _run_config_file(path)
    for override in overrides:
        _apply_override(config, override)
    return config.lock()


def find_config(name: str) -> Path:
    """Returns the file that a config's path or name stands for; InputError if there is none."""
    asked = Path(name).expanduser()
    shipped = _shipped_configs()
    inside = Path(*asked.parts[1:]) if asked.parts[:1] == ("configs",) else asked
    folders = [asked, Path("configs") / asked, shipped / inside]
    candidates = folders[:1] if asked.is_absolute() else folders
    for candidate in candidates:
        for path in (candidate, candidate.parent / f"{candidate.name}.py"):
            if path.suffix == ".py" and path.is_file():
                return path
    names = sorted(
        path.relative_to(shipped).with_suffix("").as_posix() for path in shipped.rglob("[!_]*.py")
    )
    known = f"the configs that come with tpo_jax are: {', '.join(names)}" if names else ""
    raise InputError(f"config {name}: no such Python file{'; ' if known else ''}{known}")


def to_dataclass(
    cls: type[T], config_section: ConfigDict | Mapping[str, Any], where: str = ""
) -> T:
    """Turns one section of a config into a dataclass, strictly.

    Nested dataclass fields are made from nested sections. Types are checked against the
    annotations: an int does for a float, a list for a tuple, a string for a Path, and nothing else
    is converted. A missing key takes the field's default.

    Args:
      cls: a dataclass.
      config_section: its values by field name.
      where: dotted name of the section, for messages; "" for the whole config.

    Raises:
      InputError: a key is unknown, missing without a default or of the wrong type, or the
        dataclass itself refuses its values with a ValueError.
    """
    return _build(cls, config_section, where, dotted_fields(cls, where))


def dotted_fields(cls: type, where: str = "") -> list[str]:
    """Returns the dotted key of every field of a dataclass that is not a dataclass itself."""
    hints = typing.get_type_hints(cls)
    keys: list[str] = []
    for field in _init_fields(cls):
        inner = _dataclass_in(hints[field.name])
        key = _join(where, field.name)
        keys.extend(dotted_fields(inner, key) if inner else [key])
    return keys


# ---------------------------------------------------------------------------- config files


def _shipped_configs() -> Path:
    """The folder of the installed copy's configs, or of the checkout's."""
    package = Path(tpo_jax.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _run_config_file(path: Path) -> ConfigDict:
    try:
        code = compile(path.read_text("utf-8"), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise InputError(f"{path}:{error.lineno}: syntax error: {error.msg}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Python source: {error}") from error

    names: dict[str, Any] = {"__name__": "tpo_config", "__file__": str(path)}
    # Whatever the user's own code raises is the user's to mend.
    try:
        exec(code, names)
        get_config = names.get("get_config")
        config = get_config() if callable(get_config) else None
    except Exception as error:
        line = _line_in(path, error)
        raise InputError(f"{path}{line}: {type(error).__name__}: {error}") from error
    if not callable(get_config):
        raise InputError(f"{path}: defines no get_config(); a config file returns its config there")
    if isinstance(config, FrozenConfigDict):
        config = ConfigDict(config)
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{path}: get_config() returned {type(config).__name__}; "
            "it must return an ml_collections.ConfigDict"
        )
    return config


def _line_in(path: Path, error: Exception) -> str:
    """Returns ":<line>" of the last line of the file that the error passed through."""
    line = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line


# ------------------------------------------------------------------------------- overrides


def _apply_override(config: ConfigDict, override: str) -> None:
    dotted, equals, text = override.removeprefix(OVERRIDE_PREFIX).partition("=")
    if not override.startswith(OVERRIDE_PREFIX) or not equals or not dotted:
        raise InputError(f"{override}: an override is written --config.<key>=<value>")

    *sections, key = dotted.split(".")
    section: Any = config
    for name in sections:
        section = section.get(name) if isinstance(section, ConfigDict) else None
    if not isinstance(section, ConfigDict) or key not in section:
        raise _unknown_key(dotted, _dotted_keys(config))
    if isinstance(section[key], ConfigDict):
        inner = ", ".join(_dotted_keys(section[key], dotted)) or "none"
        raise InputError(f"config key {dotted} is a section; set one of its keys: {inner}")
    section[key] = _parse(text, section.get_type(key), section[key], dotted)


def _dotted_keys(section: ConfigDict, where: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in section.items():
        key = _join(where, name)
        keys.extend(_dotted_keys(value, key) if isinstance(value, ConfigDict) else [key])
    return keys


def _parse(text: str, kind: type, current: Any, dotted: str) -> Any:
    """Returns the value that `text` stands for, as the type of the value it replaces."""
    if kind is str:
        return text
    if current is None and text.lower() == "none":
        return None
    if kind in (tuple, list):
        return _parse_sequence(text, kind, current, dotted)
    if kind is bool:
        known = {"true": True, "false": False}
        if text.lower() not in known:
            raise _wrong_type(dotted, "true or false", text)
        return known[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise _wrong_type(dotted, _type_name(kind), text) from None
    if kind is type(None):
        # The file says nothing about the type; to_dataclass checks it against the annotation.
        return _literal(text)
    raise InputError(
        f"config key {dotted} holds a {_type_name(kind)}, which cannot be set on the command line; "
        "edit the config file"
    )


def _parse_sequence(text: str, kind: type, current: Any, dotted: str) -> Any:
    value = _literal(text)
    if not isinstance(value, (tuple, list)):
        bare = text.strip().strip("()[]")
        value = [_literal(part.strip()) for part in bare.split(",") if part.strip()]
    item_types = {type(item) for item in current or ()}
    if len(item_types) == 1:
        expected = f"{kind.__name__}[{_type_name(*item_types)}, ...]"
        (item_type,) = item_types
        value = [_checked(item, item_type, dotted, expected) for item in value]
    return kind(value)


def _literal(text: str) -> Any:
    """Returns the Python literal that `text` is, or the text itself."""
    lowered = {"true": True, "false": False, "none": None}
    if text.lower() in lowered:
        return lowered[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


# ------------------------------------------------------------------------------ dataclasses


def _build(cls: type[T], section: Any, where: str, known: Sequence[str]) -> T:
    if not isinstance(section, SECTION_TYPES):
        raise _wrong_type(where, "a section", section)
    fields = {field.name: field for field in _init_fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in section:
        if name not in fields:
            raise _unknown_key(_join(where, str(name)), known)

    values: dict[str, Any] = {}
    for name, field in fields.items():
        key = _join(where, name)
        if name in section:
            values[name] = _convert(section[name], hints[name], key, known)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(
                f"config key {key} is missing; add it to the config file "
                f"(expected {_type_name(hints[name])})"
            )
    try:
        return cls(**values)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"config{f' section {where}' if where else ''}: {error}") from error


def _convert(value: Any, hint: Any, key: str, known: Sequence[str]) -> Any:
    inner = _dataclass_in(hint)
    if inner and value is not None and not isinstance(value, inner):
        return _build(inner, value, key, known)
    return _checked(value, hint, key, _type_name(hint))


def _checked(value: Any, hint: Any, key: str, expected: str) -> Any:
    """Returns the value as the annotation `hint` has it; InputError if it is not of that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if _is_union(hint):
        # An exact match comes first: an int for `float | int` stays an int.
        for option in sorted(arguments, key=lambda option: option is not type(value)):
            try:
                return _checked(value, option, key, expected)
            except InputError:
                continue
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        expected = f"one of {', '.join(map(repr, arguments))}"
    elif origin is tuple:
        if isinstance(value, (tuple, list)):
            repeats = len(arguments) == 2 and arguments[1] is ...
            item_hints = arguments[:1] * len(value) if repeats else arguments
            if len(item_hints) == len(value):
                pairs = zip(value, item_hints, strict=True)
                return tuple(_checked(item, item_hint, key, expected) for item, item_hint in pairs)
    elif origin in (dict, Mapping):
        if isinstance(value, SECTION_TYPES):
            return {
                _checked(name, arguments[0], key, expected): _checked(
                    item, arguments[1], _join(key, str(name)), _type_name(arguments[1])
                )
                for name, item in value.items()
            }
    elif isinstance(hint, type):
        if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
            return value
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if hint is tuple and isinstance(value, list):
            return tuple(value)
        if hint is Path and isinstance(value, str):
            return Path(value)
    else:
        raise TypeError(f"{key}: the annotation {hint} is not one that a config can be checked by")
    raise _wrong_type(key, expected, value)


# -------------------------------------------------------------------------- names and errors


def _init_fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _dataclass_in(hint: Any) -> type | None:
    """Returns the dataclass that an annotation is, or allows beside None."""
    options = [hint, *typing.get_args(hint)] if _is_union(hint) else [hint]
    found = [option for option in options if isinstance(option, type)]
    return next((option for option in found if dataclasses.is_dataclass(option)), None)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _type_name(hint: Any) -> str:
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    return str(hint).replace("typing.", "").replace("NoneType", "None")


def _unknown_key(dotted: str, known: Iterable[str]) -> InputError:
    return InputError(f"unknown config key {dotted}{did_you_mean(dotted, known)}")


def _wrong_type(key: str, expected: str, value: Any) -> InputError:
    return InputError(
        f"config key {key}: expected {expected}, found {value!r} ({_type_name(type(value))})"
    )
