"""A part of a page: a grid of shares, each cell as dark as its share is large."""

from collections.abc import Sequence
from html import escape

STYLE = """
.heat { display: grid; gap: 2px; max-width: 46rem; font-size: .78rem; margin: .4rem 0;
  font-variant-numeric: tabular-nums; }
.heat span { padding: .25rem .3rem; text-align: center; border-radius: 2px; min-width: 1.6rem; }
.heat .name { color: var(--soft); text-align: right; }
.heat .column { color: var(--soft); }
"""


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    shares: Sequence[Sequence[float | None]],
    colour: str,
    corner: str,
) -> str:
    """Cells of a grid, from top to bottom; None leaves one empty. `corner` names the axes."""
    parts = [
        f'<div class="heat" style="grid-template-columns: max-content repeat({len(columns)}, 1fr)">'
        f'<span class="name">{escape(corner)}</span>',
        *(f'<span class="column">{escape(column)}</span>' for column in columns),
    ]
    for row, cells in zip(rows, shares, strict=True):
        parts.append(f'<span class="name">{escape(row)}</span>')
        for share in cells:
            if share is None:
                parts.append("<span></span>")
                continue
            mixed = f"color-mix(in srgb, {colour} {100 * share:.0f}%, var(--card))"
            parts.append(f'<span style="background: {mixed}">{100 * share:.0f}</span>')
    return "".join([*parts, "</div>"])
