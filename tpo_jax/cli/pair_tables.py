"""The counts of a file of pairs as tables and bars of text."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_pipelines.pair_counts import PairCounts

BAR = 24  # characters of the longest bar
LISTED = 5  # sources and the like; the card lists more


def print_counts(path: Path, name: str, counts: PairCounts) -> None:
    """Print everything that was counted, to stdout."""
    console = Console()
    table = Table(title=Text(f"{path} ({name})"), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for key, value in _facts(counts).items():
        table.add_row(Text(key), str(value))
    console.print(table)
    console.print(_histogram(counts))
    origins = {
        "source": counts.sources,
        "licence": counts.licences,
        "generator": counts.generators,
    }
    for key, found in origins.items():
        console.print(Text(f"{key}: {_listed(found)}"))


def _facts(counts: PairCounts) -> dict[str, int]:
    facts = {"pairs": counts.rows, "videos": counts.videos}
    facts |= {f"  {name}": count for name, count in counts.granularity.items()}
    facts |= {
        "without a rejected answer": counts.without_rejected,
        "saying the same as an earlier one": counts.duplicates,
        "with the question and video of an earlier one": counts.same_question,
        "chosen and rejected the same text": counts.identical,
    }
    if counts.identical_tokens is not None:
        facts["other texts, the same tokens"] = counts.identical_tokens
    return facts | {
        "chosen a part of rejected": counts.chosen_in_rejected,
        "rejected a part of chosen": counts.rejected_in_chosen,
        "chosen longer than rejected": counts.chosen_longer,
        "rejected longer than chosen": counts.rejected_longer,
    }


def _histogram(counts: PairCounts) -> Table:
    table = Table(title=f"answers by length in {counts.unit}")
    table.add_column(counts.unit, justify="right")
    columns = {"chosen": counts.chosen, "rejected": counts.rejected}
    for name in columns:
        table.add_column(name)
    bins = sorted(
        {one for lengths in columns.values() for one in lengths.histogram},
        key=lambda label: int(label.partition("-")[0]),
    )
    most = max((n for one in columns.values() for n in one.histogram.values()), default=1)
    for label in bins:
        found = [lengths.histogram.get(label, 0) for lengths in columns.values()]
        table.add_row(label, *(_bar(count, most) for count in found))
    for key, values in (
        ("mean", [f"{lengths.mean:.1f}" for lengths in columns.values()]),
        ("median", [f"{lengths.middle:g}" for lengths in columns.values()]),
    ):
        table.add_row(key, *values)
    return table


def _bar(count: int, most: int) -> str:
    length = -(-count * BAR // most)  # whatever is there shows
    return f"{'█' * length} {count}" if count else ""


def _listed(found: Mapping[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(found.items())[:LISTED]]
    rest = len(found) - len(shown)
    return ", ".join(shown) + (f" and {rest} others" if rest else "")
