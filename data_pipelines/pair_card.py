"""The dataset card: a README.md that says what is in a set of pairs and where it comes from."""

from collections.abc import Mapping

from data_pipelines.pair_counts import PairCounts

LISTED = 20  # of sources and the like; the rest is one line


def origin_warnings(counts: PairCounts) -> list[str]:
    """One sentence for each of source, licence and generator that some rows do not say."""
    return [
        f"{count} of {counts.rows} pairs do not say their {key}; --{key}=TEXT says it of them"
        for key, count in counts.unknown().items()
    ]


def render_card(title: str, counts: PairCounts) -> str:
    """The card as Markdown, the same for the same counts."""
    lines = [
        f"# {title}",
        "",
        "Pairs for preference training of video language models: a question about a video, a "
        "chosen and a rejected answer. The videos are not in here.",
        "",
        *_table("Counts", _counts(counts)),
        *_table("Granularity", counts.granularity),
        *_table("Licences of the videos", counts.licences),
        *_table("Generators of the answers", counts.generators),
        *_table("Sources of the videos", counts.sources),
    ]
    missing = ", ".join(f"{key} ({count})" for key, count in counts.unknown().items())
    if missing:
        lines += [f"Not known of all pairs: {missing}. Ask before you pass them on.", ""]
    return "\n".join(lines)


def _counts(counts: PairCounts) -> dict[str, str]:
    found = {
        "pairs": str(counts.rows),
        "videos": str(counts.videos),
        "without a rejected answer": str(counts.without_rejected),
    }
    for name, lengths in (("chosen", counts.chosen), ("rejected", counts.rejected)):
        if lengths.most:
            found[f"{counts.unit} of {name} answers"] = (
                f"{lengths.least} to {lengths.most}, mean {lengths.mean:.1f}"
            )
    return found


def _table(heading: str, entries: Mapping[str, object]) -> list[str]:
    shown = list(entries.items())[:LISTED]
    rest = len(entries) - len(shown)
    body = [f"| {_cell(key)} | {value} |" for key, value in shown]
    body += [f"| {rest} others | |"] if rest else []
    return [f"## {heading}", "", "| | |", "|---|---|", *body, ""]


def _cell(text: str) -> str:
    """One line, with nothing in it that would end the cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
