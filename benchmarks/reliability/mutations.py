"""Ways to damage a file, drawn from a generator: its bytes, or what is told in it.

damage(path, rng)      # damages the file in place; returns a line that says how
"""

import csv
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Of a folder beside the case's own: nothing of it may ever be opened.
OUTSIDE = "outside"
# A pickle that makes this folder there when it is loaded.
UNPICKLED = "unpickled"
DEPTH = 100_000
LENGTH_BYTES = 8


class MakesFolder:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path):
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (self._path, 0o777, True)


def damage(path: Path, rng: np.random.Generator, outside: Path) -> str:
    """Damages a file in place.

    Args:
      path: the file.
      rng: decides how.
      outside: folder that values and pickles point to.

    Returns:
      What was done, for a person.
    """
    structured = _STRUCTURED.get("".join(path.suffixes[-1:]))
    content = path.read_bytes()
    if structured is not None and content and rng.random() < 0.6:
        try:
            return structured(path, rng, outside)
        except (ValueError, KeyError, zipfile.BadZipFile):
            pass  # it is not what its name says: its bytes will do
    return damage_bytes(path, content, rng, outside)


# ------------------------------------------------------------------------------------------- bytes


def damage_bytes(path: Path, content: bytes, rng: np.random.Generator, outside: Path) -> str:
    """Flips, cuts, puts in, or puts something else in its place."""
    size = len(content)
    data = bytearray(content)
    place = int(rng.integers(size)) if size else 0
    how = str(
        rng.choice(
            ["flip", "flip many", "cut", "cut to a few", "empty", "zeros", "noise", "insert"]
            + ["huge number", "double", "text", "pickle", "deep", "gone", "folder", "not utf-8"]
        )
    )
    if how == "flip" and size:
        data[place] ^= 1 << int(rng.integers(8))
    elif how == "flip many" and size:
        for one in rng.integers(size, size=min(64, size)):
            data[one] ^= 1 << int(rng.integers(8))
    elif how == "cut":
        del data[place:]
    elif how == "cut to a few":
        del data[int(rng.integers(16)) :]
    elif how == "empty":
        data.clear()
    elif how == "zeros":
        data[place : place + 64] = bytes(len(data[place : place + 64]))
    elif how == "noise":
        data[:] = rng.bytes(max(size, 16))
    elif how == "insert":
        data[place:place] = rng.bytes(int(rng.integers(1, 32)))
    elif how == "huge number":
        place = int(rng.choice([0, place]))
        data[place : place + LENGTH_BYTES] = b"\xff" * int(rng.choice([4, LENGTH_BYTES]))
    elif how == "double":
        data += content
    elif how == "text":
        data[:] = b"This is some text, and not what its name says.\n" * 20
    elif how == "pickle":
        data[:] = pickle.dumps(MakesFolder(outside / UNPICKLED))
    elif how == "deep":
        data[:] = b"[" * DEPTH if rng.random() < 0.5 else b'{"a":' * DEPTH
    elif how == "not utf-8":
        data[place:place] = b"\xff\xfe\x80"
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes(data)
    return f"{how} at {place} of {size} bytes"


# --------------------------------------------------------------------------------------- structure


def wild_value(rng: np.random.Generator, outside: Path) -> Any:
    """A value that nobody expects."""
    values: tuple[Any, ...] = (
        None, True, 0, -1, 1, 3, 2**31, 2**63, -(2**64), 1e308, -0.5, float("nan"), float("inf"),
        "", "x", "a" * 5000, "../" * 6 + "etc/passwd", f"{outside}/secret.mp4",
        f"../{OUTSIDE}/secret.mp4", f"../../{OUTSIDE}/secret.mp4", "\0", "\ud800", "[bold]x[/b]",
        "<video>", "line\nline", [], [[]], [None], [-1], [1e9], {}, {"a": {}}, [[[[1]]]], "1",
        "3.5",
    )  # fmt: skip
    return values[int(rng.integers(len(values)))]


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON tree."""
    found: list[tuple[Any, Any]] = []
    left = [tree]
    while left:
        one = left.pop()
        keys = list(one) if isinstance(one, dict) else range(min(len(one), 20))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], (dict, list)):
                left.append(one[key])
    return found


def change_tree(tree: Any, rng: np.random.Generator, outside: Path) -> tuple[Any, str]:
    """The tree with one thing in it changed, and what."""
    places = _places(tree) if isinstance(tree, (dict, list)) else []
    if not places or rng.random() < 0.03:
        value = wild_value(rng, outside)
        return value, f"all of it became {value!r:.60}"
    holder, key = places[int(rng.integers(len(places)))]
    how = str(rng.choice(["value", "value", "value", "drop", "unknown key", "rename", "wrap"]))
    if how == "value":
        holder[key] = value = wild_value(rng, outside)
        return tree, f"{key!r} became {value!r:.60}"
    if how == "unknown key" and isinstance(holder, dict):
        holder["unknown_key"] = wild_value(rng, outside)
    elif how == "rename" and isinstance(holder, dict):
        holder[f"{key}s"] = holder.pop(key)
    elif how == "wrap":
        holder[key] = [holder[key]]
    else:
        how = "drop"
        del holder[key]
    return tree, f"{how} at {key!r}"


def _json(path: Path, rng: np.random.Generator, outside: Path) -> str:
    tree, said = change_tree(json.loads(path.read_text("utf-8")), rng, outside)
    path.write_text(json.dumps(tree), "utf-8")
    return said


def _json_lines(path: Path, rng: np.random.Generator, outside: Path) -> str:
    lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    number = int(rng.integers(len(lines)))
    how = str(rng.choice(["change", "change", "change", "twice", "gone", "empty line"]))
    said = f"{how} in line {number + 1}"
    if how == "change":
        tree, changed = change_tree(json.loads(lines[number]), rng, outside)
        lines[number] = json.dumps(tree)
        said = f"line {number + 1}: {changed}"
    elif how == "twice":
        lines.append(lines[number])
    elif how == "gone":
        del lines[number]
    else:
        lines.insert(number, "")
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return said


def _csv(path: Path, rng: np.random.Generator, outside: Path) -> str:
    rows = list(csv.reader(io.StringIO(path.read_text("utf-8"))))
    row = rows[int(rng.integers(len(rows)))]
    column = int(rng.integers(len(row)))
    value = wild_value(rng, outside)
    if rng.random() < 0.2:
        del row[column]
    else:
        row[column] = value if isinstance(value, str) else json.dumps(value)
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    path.write_bytes(out.getvalue().encode("utf-8", "surrogatepass"))
    return f"cell {column} became {value!r:.60}"


def _arrays(path: Path, rng: np.random.Generator, outside: Path) -> str:
    with np.load(path, allow_pickle=False) as content:
        arrays = dict(content)
    name = sorted(arrays)[int(rng.integers(len(arrays)))]
    array = arrays[name]
    how = str(rng.choice(["drop", "object", "reshape", "dtype", "cut", "nan", "no number"]))
    if how == "drop":
        del arrays[name]
    elif how == "object":
        arrays[name] = np.array([MakesFolder(outside / UNPICKLED)], dtype=object)
    elif how == "reshape":
        arrays[name] = array[None]
    elif how == "dtype":
        arrays[name] = array.astype(str) if array.dtype.kind != "U" else np.zeros(array.shape)
    elif how == "cut":
        arrays[name] = array[..., :-1] if array.ndim else array
    elif how == "nan" and array.dtype.kind == "f":
        arrays[name] = np.full_like(array, np.nan)
    else:
        arrays[name] = np.array(["x"])
    np.savez(path, **arrays)
    return f"array {name}: {how}"


def _safetensors(path: Path, rng: np.random.Generator, outside: Path) -> str:
    content = path.read_bytes()
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES:][:length])
    header, said = change_tree(header, rng, outside)
    new = json.dumps(header).encode()
    rest = content[LENGTH_BYTES + length :]
    path.write_bytes(len(new).to_bytes(LENGTH_BYTES, "little") + new + rest)
    return f"header: {said}"


_STRUCTURED: dict[str, Callable[[Path, np.random.Generator, Path], str]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".npz": _arrays,
    ".safetensors": _safetensors,
}
