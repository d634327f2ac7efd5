"""Plans as tables: slices side by side for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from tpo_jax.planning.flops import PARTS
from tpo_jax.planning.hardware import GIB
from tpo_jax.planning.plan import USABLE, Plan
from tpo_jax.planning.traffic import FROM_HOST, TO_HOST, Traffic

Rows = list[tuple[str, list[str]]]
TERA, GIGA = 1e12, 1e9
RESOURCES = {
    "compute": "compute and waiting",
    "hbm": "HBM",
    "ici": "between chips",
    "dcn": "between slices",
    "host": "to and from host",
}
# A resource in a sentence; "blocking" is waiting for transfers that nothing runs beside.
BOUNDS = {
    "compute": "compute",
    "blocking": "waiting for transfers",
    "hbm": "HBM",
    "ici": "links between chips",
    "dcn": "network between slices",
    "host": "link to the host",
}


def side_by_side(plans: Sequence[Plan], title: str) -> Table:
    """A column for each slice."""
    table = Table(title=title, caption="GiB and GB are those of one device; time is a model")
    table.add_column("")
    for plan in plans:
        table.add_column(plan.where.name, justify="right", overflow="fold")
    sections = (shape_rows, memory_rows, flops_rows, traffic_rows, time_rows)
    for section in sections:
        for name, values in section(plans):
            table.add_row(name, *values)
        table.add_section()
    return table


def shape_rows(plans: Sequence[Plan]) -> Rows:
    """What lies where."""
    return [
        ("chips", [f"{plan.where.chips:,}" for plan in plans]),
        ("mesh", [mesh_text(plan) for plan in plans]),
        ("pairs x frames", [f"{plan.work.pairs} x {plan.work.frames:,}" for plan in plans]),
        ("tokens of a row", [f"{plan.work.row_tokens:,}" for plan in plans]),
        ("remat", [plan.work.config.language.remat for plan in plans]),
    ]


def mesh_text(plan: Plan) -> str:
    """The axes that split anything."""
    return " ".join(f"{axis}={size}" for axis, size in plan.compiled.mesh.items() if size > 1) or (
        "one device"
    )


def memory_rows(plans: Sequence[Plan]) -> Rows:
    """The peak, what it is made of, and the verdict."""
    rows: Rows = [("peak HBM", [f"{plan.compiled.peak_bytes / GIB:.2f} GiB" for plan in plans])]
    for part in plans[0].compiled.parts:
        values = [plan.compiled.parts[part] / GIB for plan in plans]
        rows.append((f"  {part}", [f"{value:.2f}" for value in values]))
    alive = [plan.compiled.sizes.get("alive") for plan in plans]
    in_use = ["unknown" if size is None else f"{size / GIB:.2f} GiB" for size in alive]
    rows.append(("in use at one moment", in_use))
    if any(plan.compiled.host_bytes for plan in plans):
        on_host = [f"{plan.compiled.host_bytes / GIB:.2f} GiB" for plan in plans]
        rows.append(("in the host's memory", on_host))
    return [*rows, (f"fits {USABLE} of the chip", [fits_text(plan) for plan in plans])]


def fits_text(plan: Plan) -> str:
    """Yes or no, and of how much."""
    device, peak = plan.where.hbm_bytes_per_device / GIB, plan.compiled.peak_bytes / GIB
    if plan.compiled.refused:
        return f"no: does not compile, needs {peak:.2f} of {device:.2f}"
    return f"{'yes' if plan.fits else 'no'}: {peak:.2f} of {plan.usable_bytes / GIB:.2f}"


def flops_rows(plans: Sequence[Plan]) -> Rows:
    """TFLOP of one pair by part, forward and backward, and what is computed again."""
    rows: Rows = [("TFLOP per pair", [tera(plan.flops.hardware_flops) for plan in plans])]
    for part in PARTS:
        values = [plan.flops.forward[part] + plan.flops.backward[part] for plan in plans]
        rows.append((f"  {part}", [tera(value) for value in values]))
    again = [sum(plan.flops.recompute.values()) for plan in plans]
    return [*rows, ("  recompute", [tera(value) for value in again])]


def tera(flops: float) -> str:
    """In units of 1e12; as many digits as tell small ones from nothing."""
    value = flops / TERA
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def traffic_rows(plans: Sequence[Plan]) -> Rows:
    """GB that a device sends in a step, by kind."""

    def row(name: str, sent: Sequence[float | None]) -> tuple[str, list[str]]:
        return name, ["unknown" if size is None else f"{size / GIGA:.3g}" for size in sent]

    found = [plan.compiled.traffic for plan in plans]
    kinds = dict.fromkeys(kind for one in found if one for kind in one.by_kind)
    rows = [
        row(f"GB {kind}", [None if one is None else one.by_kind.get(kind, 0.0) for one in found])
        for kind in kinds
    ]
    for direction in (TO_HOST, FROM_HOST):
        sent = [None if one is None else bytes_of_kind(one, direction) for one in found]
        rows.append(row(f"GB {direction}", sent))
    if any(plan.where.slices > 1 for plan in plans):
        rows.append(
            row("GB between slices", [None if one is None else one.dcn_bytes for one in found])
        )
    return rows


def bytes_of_kind(traffic: Traffic, kind: str) -> float:
    """Of all transfers of a kind, over whatever network."""
    return sum(transfer.bytes for transfer in traffic.transfers if transfer.kind == kind)


def time_rows(plans: Sequence[Plan]) -> Rows:
    """Seconds by resource, of the whole, and what the run takes."""
    times = [plan.time for plan in plans]
    rows: Rows = []
    for resource, name in RESOURCES.items():
        values = [None if time is None else time.by_resource[resource] for time in times]
        if any(values):
            rows.append((f"s {name}", [seconds_text(value) for value in values]))
    updates = [None if time is None else time.update for time in times]
    if any(updates):
        rows.append(("s optimizer", [seconds_text(value) for value in updates]))
    wholes = [None if time is None else time.seconds for time in times]
    rows.append(("modelled step", [seconds_text(value, " s") for value in wholes]))
    rows.append(("bound by", ["unknown" if t is None else BOUNDS[t.bound_by] for t in times]))
    rows.append(
        ("utilisation", ["unknown" if t is None else f"{t.utilisation:.0%}" for t in times])
    )
    costs = [plan.cost for plan in plans]
    for name, key in (("pairs per hour", "pairs_per_hour"), ("steps", "steps")):
        rows.append((name, [f"{getattr(c, key):,.0f}" if c else "unknown" for c in costs]))
    for name, key in (("hours of the run", "hours"), ("chip-hours", "chip_hours")):
        rows.append((name, [f"{getattr(c, key):,.3g}" if c else "unknown" for c in costs]))
    compiled = [plan.compiled.seconds["compile"] for plan in plans]
    return [*rows, ("compiled in", [f"{value:.0f} s" for value in compiled])]


def seconds_text(value: float | None, unit: str = "") -> str:
    """Three digits, so that milliseconds show."""
    return "unknown" if value is None else f"{value:.3g}{unit}"
