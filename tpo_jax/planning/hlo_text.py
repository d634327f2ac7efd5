"""Optimized HLO as text: its instructions, types and groups, and how often its loops run."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

BITS = {"pred": 8, "token": 0}
HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"(ROOT )?%([\w.\-]+) = (.*)$")
OPCODE = re.compile(r"(?:^|\s)([a-z][\w\-]*)\(")
SHAPE = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\]")
ARRAY = re.compile(r"[a-z]\w*\[[\d,]*\](?:\{[^}]*\})?")  # shape with its layout
CALLED = re.compile(r"(calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line: its result's type as text, its opcode, its operands' names, and the whole line."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    line: str
    root: bool


Computation = dict[str, Instruction]


def read_computations(hlo_text: str) -> tuple[dict[str, Computation], str]:
    """The computations by name, and the entry's name."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in hlo_text.splitlines():
        if current is None:
            if header := HEADER.match(line):
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
        elif line.rstrip() == "}":  # attributes of kernels go on over lines such as "}}, metadata="
            current = None
        elif found := INSTRUCTION.match(line.strip()):
            made = parse_instruction(found[2], found[3], root=found[1] is not None)
            current[made.name] = made
    return computations, entry


def parse_instruction(name: str, text: str, *, root: bool) -> Instruction:
    """An instruction from what stands right of its `=`."""
    text = re.sub(r"/\*.*?\*/", "", text)
    end = closing(text, 1) if text.startswith("(") else 0  # a tuple type has brackets inside
    opcode = OPCODE.search(text, end)
    assert opcode is not None, text
    inside = text[opcode.end() : closing(text, opcode.end())]
    return Instruction(
        name=name,
        type=text[: opcode.start()],
        opcode=opcode[1],
        operands=tuple(re.findall(r"%([\w.\-]+)", inside)),
        line=text,
        root=root,
    )


def closing(text: str, start: int) -> int:
    """Place of the bracket that closes the one before `start`."""
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)


def count_bytes(type_text: str) -> int:
    """Bytes of all arrays in a type, without the padding of tiles."""
    total = 0
    for name, sizes in SHAPE.findall(type_text):
        bits = BITS.get(name) or int((re.findall(r"\d+", name) or ["0"])[0])
        total += math.ceil(math.prod(map(int, filter(None, sizes.split(",")))) * bits / 8)
    return total


def replica_groups(line: str) -> list[list[int]]:
    """The groups of a collective, written out or as `[2,4]<=[4,2]T(1,0)`; pairs of a permute."""
    listed = re.search(r"(?:source_target_pairs|replica_groups)=\{((?:\{[\d,]*\},?)+)\}", line)
    if listed:
        groups = re.findall(r"\{([\d,]+)\}", listed[1])
        return [[int(device) for device in group.split(",")] for group in groups]
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if iota is None:
        return []
    sizes = [int(size) for size in iota[2].split(",")]
    order = [int(axis) for axis in iota[3].split(",")] if iota[3] else None
    devices = np.arange(math.prod(sizes)).reshape(sizes).transpose(order)
    return devices.reshape(-1, int(iota[1].split(",")[-1])).tolist()


# ------------------------------------------------------------------------------------ trip counts


def count_trips(
    loop: Instruction, around: Computation, computations: Mapping[str, Computation]
) -> int | None:
    """How often the body of a while runs; None where neither the compiler nor the loop says it."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.line):
        return int(known[1])
    called = {key: name.lstrip("%") for key, name in CALLED.findall(loop.line)}
    condition, body = computations[called["condition"]], computations[called["body"]]
    test = next(line for line in condition.values() if line.root)
    direction = re.search(r"direction=(LT|LE|NE)", test.line)
    if test.opcode != "compare" or direction is None:
        return None
    index = tuple_index(condition, test.operands[0])
    limit = constant_value(condition, test.operands[1])
    start = around.get(loop.operands[0])
    root = next(line for line in body.values() if line.root)
    if index is None or start is None or start.opcode != "tuple" or root.opcode != "tuple":
        return None
    place = tuple_index(condition, test.operands[1])
    if place is not None:  # the limit is carried through the loop
        limit = constant_value(around, start.operands[place])
    first = constant_value(around, start.operands[index])
    added = chase(body, root.operands[index])
    step = None
    if added is not None and added.opcode == "add":
        steps = [constant_value(body, name) for name in added.operands]
        step = next((value for value in steps if value is not None), None)
    if limit is None or first is None or not step or step < 0:
        return None
    return max(0, math.ceil((limit + (direction[1] == "LE") - first) / step))


def chase(computation: Computation, name: str) -> Instruction | None:
    """The instruction that made a value, copies of it passed over."""
    found = computation.get(name)
    while found is not None and found.opcode in ("copy", "bitcast", "copy-start", "copy-done"):
        found = computation.get(found.operands[0])
    return found


def tuple_index(computation: Computation, name: str) -> int | None:
    """Which element of the loop's state a value is."""
    found = chase(computation, name)
    place = re.search(r"index=(\d+)", found.line) if found else None
    return int(place[1]) if place and found and found.opcode == "get-tuple-element" else None


def constant_value(computation: Computation, name: str) -> int | None:
    """The whole number a value is, if it is a constant."""
    found = chase(computation, name)
    number = re.search(r"constant\((-?\d+)\)", found.line) if found else None
    return int(number[1]) if number else None
