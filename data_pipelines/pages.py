"""Pages to look at: one HTML file that needs nothing else, opens offline and fits a phone.

Curves are SVG in the page's own text colour, bars and contact sheets are plain HTML, so all of it
is sharp at any size and right in dark mode. Whatever text comes in is escaped.
"""

import base64
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_pipelines import page_counts, page_heat, page_marks
from data_pipelines.errors import InputError

# Told apart by colour-blind eyes, and strong enough on white and on black.
PALETTE = ("#3b82c4", "#e0762f", "#2f9e6e", "#b05cc0", "#b8911f", "#d1495b")
THUMBNAIL = 160  # pixels along an edge of a contact sheet's frame, at most
# matplotlib wants a colour; the page puts its text colour in its place.
_INK = "#010203"
_WRITTEN_NUMBER = re.compile(r"[-+–\d.,%\[\] ]*|-?[\d.]+e[-+]\d+|-?inf|nan")

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #66717f; --line: #dde2e8;
  --paper: #fff; --card: #f6f8fa; --mark: #e0762f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a3b1; --line: #333c47;
  --paper: #14181d; --card: #1c222a; --mark: #f0954f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 60rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p { margin: .6rem 0; max-width: 44rem; white-space: pre-line; }
figure { margin: 1.2rem 0; }
figcaption { color: var(--soft); font-size: .9rem; white-space: pre-line; }
figcaption b { color: var(--ink); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td { white-space: pre-wrap; } th { color: var(--soft); font-weight: 600; }
.number { text-align: right; white-space: nowrap; }
img, svg { display: block; max-width: 100%; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9rem; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .4em; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr));
  gap: .5rem 1.5rem; margin: .6rem 0; }
.panels svg { width: 100%; } .panels svg text { font-family: inherit !important; }
.panels h3 { font-size: .95rem; margin: .4rem 0 0; } .panels small { color: var(--soft); }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .15rem .8rem;
  align-items: center; max-width: 46rem; margin: .4rem 0;
  font-size: .92rem; font-variant-numeric: tabular-nums; }
.bars .group { grid-column: 1; grid-row: span var(--rows); }
.bars .track { grid-column: 2; position: relative; height: .95rem; background: var(--card);
  border-radius: 2px; }
.bars .number { grid-column: 3; font-size: .82rem; line-height: 1.3; color: var(--soft); }
.bars .number b { color: var(--ink); } .bars hr { grid-column: 1 / -1; border: 0; margin: .1rem; }
@media (max-width: 34rem) { .bars { grid-template-columns: 1fr max-content; }
  .bars .group { grid-column: 1 / -1; grid-row: auto; } .bars .track { grid-column: 1; }
  .bars .number { grid-column: 2; } }
.track span { position: absolute; top: 0; bottom: 0; left: 0; border-radius: 2px; }
.track .whisker { top: 50%; bottom: auto; height: 2px; margin-top: -1px;
  background: var(--ink); opacity: .65; }
.track .chance { width: 0; border-left: 2px dotted var(--ink); opacity: .55; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)); gap: .35rem;
  margin: .4rem 0; }
.sheet div { border-radius: 4px; border: 3px solid transparent; font-size: .72rem;
  text-align: center; color: var(--soft); font-variant-numeric: tabular-nums; line-height: 1.5; }
.sheet img { width: 100%; border-radius: 2px; }
.sheet .highlight { border-color: var(--mark); background: var(--mark); color: #111; }
"""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One small plot of a row of them; `series` is name -> (x [points], y [points])."""

    title: str
    y_label: str
    series: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
    x_label: str = "step"


class Page:
    """A page that grows from top to bottom; `render` gives the whole of it as HTML."""

    def __init__(self, title: str):
        self._title = title
        self._parts: list[str] = []
        self._marks: set[str] = set()

    def heading(self, text: str) -> None:
        """Begins a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Adds a paragraph; line breaks are kept."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds a table; a column of numbers stands to the right, floats have four digits.

        Raises:
          InputError: a row is longer or shorter than `headers`.
        """
        for number, row in enumerate(rows):
            if len(row) != len(headers):
                raise InputError(f"table row {number}: {len(row)} cells, {len(headers)} headers")
        numeric = [
            bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(headers))
        ]
        head = "".join(
            _cell("th", text, right) for text, right in zip(headers, numeric, strict=True)
        )
        body = "".join(
            "<tr>" + "".join(_cell("td", c, r) for c, r in zip(row, numeric, strict=True)) + "</tr>"
            for row in rows
        )
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def image(self, png: bytes, alt: str, caption: str = "") -> None:
        """Adds a PNG file's bytes as a picture; `alt` says what it shows. InputError: not a PNG."""
        if not png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise InputError(f"image {alt!r}: not the bytes of a PNG file")
        self._figure(f'<img alt="{escape(alt)}" src="{_data("image/png", png)}">', caption)

    def curves(self, panels: Sequence[Panel], caption: str = "") -> None:
        """Adds small plots side by side (below each other on a phone) with one legend for all.

        A series has the same colour in every panel. A y that is not a number leaves a gap.

        Raises:
          InputError: a series has not as many x as y.
        """
        colours = _colours(name for panel in panels for name in panel.series)
        plots = "".join(
            f"<div><h3>{escape(panel.title)}</h3><small>{escape(panel.y_label)}</small>"
            f"{_plot(panel, colours)}</div>"
            for panel in panels
        )
        legend = _legend(colours) if len(colours) > 1 else ""
        self._figure(f'{legend}<div class="panels">{plots}</div>', caption)

    def bars(
        self,
        groups: Sequence[str],
        series: Mapping[str, Sequence[tuple[float, float, float]]],
        chance: Sequence[float | None] | None = None,
        caption: str = "",
    ) -> None:
        """Adds bars from 0 to 100% with their intervals, one for each series in each group.

        Args:
          groups: names, from top to bottom.
          series: name -> (value, low, high) for each group, within [0, 1].
          chance: for each group what guessing gives, drawn as a dotted line.
          caption: goes below.

        Raises:
          InputError: a number is outside [0, 1].
        """
        colours = _colours(series)
        chances = chance if chance is not None else [None] * len(groups)
        parts = [_legend(colours), f'<div class="bars" style="--rows: {len(series)}">']
        for group, *values, guess in zip(groups, *series.values(), chances, strict=True):
            parts.append(f'<hr><span class="group">{escape(group)}</span>')
            for colour, value in zip(colours.values(), values, strict=True):
                parts.append(_bar(group, value, guess, colour))
        self._figure("".join([*parts, "</div>"]), caption)

    def counts(
        self, groups: Sequence[str], series: Mapping[str, Sequence[int]], caption: str = ""
    ) -> None:
        """Adds bars of counts, one for each series in each group; the largest fills the width."""
        colours = _colours(series)
        legend = _legend(colours) if len(colours) > 1 else ""
        self._figure(legend + page_counts.count_bars(groups, series, colours), caption)

    def funnel(self, steps: Sequence[tuple[str, int, int]], caption: str = "") -> None:
        """Adds bars that grow shorter; a step is (its name, how many are left, how many went)."""
        self._figure(page_counts.funnel_bars(steps, PALETTE[0]), caption)

    def differences(self, title: str, text: str, other_title: str, other: str) -> None:
        """Adds two texts beside each other; words that the other has not are marked."""
        self._parts.append(page_counts.differences(title, text, other_title, other))

    def heat_map(
        self,
        rows: Sequence[str],
        columns: Sequence[str],
        shares: Sequence[Sequence[float | None]],
        corner: str = "",
        caption: str = "",
    ) -> None:
        """Adds a grid of shares in percent, the darker the larger.

        Args:
          rows, columns: their names.
          shares: a list for each row, within [0, 1]; None leaves a cell empty.
          corner: says what rows and columns are.
          caption: goes below.

        Raises:
          InputError: a share is outside [0, 1].
        """
        if wrong := [s for row in shares for s in row if s is not None and not 0 <= s <= 1]:
            raise InputError(f"heat map: {wrong[0]} must lie within 0 and 1")
        self._figure(page_heat.heat_map(rows, columns, shares, PALETTE[0], corner), caption)

    def contact_sheet(
        self,
        frames: np.ndarray,
        labels: Sequence[str],
        highlight: Collection[int] = (),
        caption: str = "",
    ) -> None:
        """Adds frames side by side, as many in a line as fit.

        Args:
          frames: uint8 [F, S, S, 3].
          labels: one below each frame, such as its time.
          highlight: the positions (0 to F - 1) of frames to stand out.
          caption: goes below.

        Raises:
          InputError: the frames are of another type or shape, or not as many as labels.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise InputError(f"frames: {frames.dtype} {frames.shape}, must be uint8 [F, S, S, 3]")
        if len(frames) != len(labels):
            raise InputError(f"{len(frames)} frames, {len(labels)} labels: must be one each")
        cells = []
        for position, (frame, label) in enumerate(zip(frames, labels, strict=True)):
            mark = ' class="highlight"' if position in highlight else ""
            source = _data("image/jpeg", _thumbnail(frame))
            cells.append(f'<div{mark}><img alt="" src="{source}">{escape(label)}</div>')
        self._figure(f'<div class="sheet">{"".join(cells)}</div>', caption)

    def mark(self, identity: str, label: str) -> None:
        """Adds a box to tick; the page then ends with a button that saves the ids of those ticked.

        Raises:
          InputError: the id has one already.
        """
        if identity in self._marks:
            raise InputError(f"mark {identity!r}: is on the page already; ids must differ")
        self._marks.add(identity)
        self._parts.append(page_marks.box(identity, label))

    def render(self) -> str:
        """Returns the whole page; the same parts give the same text."""
        # The policy forbids the browser to load anything that is not in the file.
        marks = bool(self._marks)
        scripts = f"; {page_marks.script_policy()}" if marks else ""
        style = _STYLE + page_counts.STYLE + page_heat.STYLE + (page_marks.STYLE if marks else "")
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'"
            f'{scripts}">\n'
            f"<title>{escape(self._title)}</title><style>{style}</style></head>\n"
            f"<body><h1>{escape(self._title)}</h1>\n"
            + "\n".join([*self._parts, page_marks.bar()] if marks else self._parts)
            + "\n</body></html>\n"
        )

    def _figure(self, content: str, caption: str) -> None:
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._parts.append(f"<figure>{content}{below}</figure>")


def _is_number(cell: Any) -> bool:
    """Also of numbers that are written already, such as "51.2%" or "+1.5 [-0.2, +3.1]"."""
    return _WRITTEN_NUMBER.fullmatch(str(cell)) is not None


def _cell(tag: str, cell: Any, right: bool) -> str:
    shown = f"{cell:.4g}" if isinstance(cell, float | np.floating) else str(cell)
    style = ' class="number"' if right else ""
    return f"<{tag}{style}>{escape(shown)}</{tag}>"


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _thumbnail(frame: np.ndarray) -> bytes:
    image = Image.fromarray(frame)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name; they only repeat when there are more names than colours."""
    return dict(zip(dict.fromkeys(names), cycle(PALETTE), strict=False))


def _legend(colours: Mapping[str, str]) -> str:
    entries = (
        f'<span><i style="background: {colour}"></i>{escape(name)}</span>'
        for name, colour in colours.items()
    )
    return f'<div class="legend">{"".join(entries)}</div>'


def _bar(group: str, value: tuple[float, float, float], guess: float | None, colour: str) -> str:
    numbers = [*value, 0.0 if guess is None else guess]
    if not all(0 <= number <= 1 for number in numbers):
        raise InputError(f"bars of {group!r}: {numbers} must lie within 0 and 1")
    middle, low, high = (100 * number for number in value)
    line = (
        f'<span class="chance" style="left: {100 * guess:.2f}%"></span>'
        if guess is not None
        else ""
    )
    return (
        f'<div class="track"><span style="width: {middle:.2f}%; background: {colour}"></span>{line}'
        f'<span class="whisker" style="left: {low:.2f}%; width: {high - low:.2f}%"></span></div>'
        f'<span class="number"><b>{middle:.1f}%</b> {low:.1f}–{high:.1f}</span>'
    )


def _plot(panel: Panel, colours: Mapping[str, str]) -> str:
    """The panel's plot as an SVG element that takes its text colour from the page."""
    # Imported here since it is slow to import and most of the commands draw nothing.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color")
    style: Any = dict.fromkeys((*inked, "xtick.color", "ytick.color"), _INK) | {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": panel.title,  # else ids are random and the page differs each time
        "text.parse_math": False,  # a "$" in a name is no formula
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.grid": True,
        "grid.alpha": 0.15,
        "font.size": 11,
    }
    with matplotlib.rc_context(style):
        # Not through pyplot, which would keep the figure until it is closed.
        figure = Figure(figsize=(4.2, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for name, points in panel.series.items():
            x, y = (np.asarray(values, dtype=np.float64) for values in points)
            if len(x) != len(y):
                raise InputError(f"curve {name!r} of {panel.title!r}: {len(x)} x, {len(y)} y")
            # A line of one point would not be seen.
            axes.plot(x, y, color=colours[name], linewidth=1.5, marker="o" if len(x) == 1 else "")
        axes.set_xlabel(panel.x_label)
        file = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(figure).print_svg(file, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Names of groups are never referred to, and would occur once in every plot of the page.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return svg.replace(_INK, "currentColor")
