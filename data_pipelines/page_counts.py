"""Parts of a page that count or compare, as HTML: bars of counts, a funnel, texts with marks."""

from collections.abc import Mapping, Sequence
from html import escape

from data_pipelines.word_diff import Piece, compare_words

STYLE = """
.bars .lost { opacity: .35; }
.both { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: .8rem;
  margin: .6rem 0; }
.both > div { background: var(--card); border-radius: 4px; padding: .5rem .8rem;
  white-space: pre-wrap; }
.both small { display: block; color: var(--soft); }
.both mark { color: inherit; background: none; border-bottom: 2px solid var(--mark);
  font-weight: 600; }
"""

LOST = "var(--mark)"


def count_bars(
    groups: Sequence[str], series: Mapping[str, Sequence[int]], colours: Mapping[str, str]
) -> str:
    """One bar for each series in each group, all on the scale of the largest count."""
    most = max((count for counts in series.values() for count in counts), default=0)
    parts = [f'<div class="bars" style="--rows: {len(series)}">']
    for group, *counts in zip(groups, *series.values(), strict=True):
        parts.append(f'<hr><span class="group">{escape(group)}</span>')
        for colour, count in zip(colours.values(), counts, strict=True):
            parts.append(f'<div class="track">{_part(0, count, most, colour)}</div>')
            parts.append(f'<span class="number"><b>{count}</b></span>')
    return "".join([*parts, "</div>"])


def funnel_bars(steps: Sequence[tuple[str, int, int]], colour: str) -> str:
    """One bar a step (name, left after it, lost in it); the first step is the scale."""
    most = max((left + lost for _, left, lost in steps), default=0)
    parts = ['<div class="bars" style="--rows: 1">']
    for name, left, lost in steps:
        told = f" −{lost}" if lost else ""
        parts += [
            f'<hr><span class="group">{escape(name)}</span><div class="track">',
            _part(0, left, most, colour),
            _part(left, lost, most, LOST, "lost") if lost else "",
            f'</div><span class="number"><b>{left}</b>{told}</span>',
        ]
    return "".join([*parts, "</div>"])


def differences(title: str, text: str, other_title: str, other: str) -> str:
    """Two texts side by side (below each other on a phone); words the other lacks are marked."""
    pieces, other_pieces = compare_words(text, other)
    return (
        f'<div class="both"><div><small>{escape(title)}</small>{_marked(pieces)}</div>'
        f"<div><small>{escape(other_title)}</small>{_marked(other_pieces)}</div></div>"
    )


def _marked(pieces: Sequence[Piece]) -> str:
    """The space before a word is not marked."""
    parts = []
    for text, differs in pieces:
        space = text[: len(text) - len(text.lstrip())]
        shown = escape(text[len(space) :])
        parts.append(f"{escape(space)}<mark>{shown}</mark>" if differs and shown else escape(text))
    return "".join(parts)


def _part(start: int, count: int, most: int, colour: str, name: str = "") -> str:
    left, width = (100 * value / max(most, 1) for value in (start, count))
    kind = f' class="{name}"' if name else ""
    return (
        f'<span{kind} style="left: {left:.2f}%; width: {width:.2f}%; background: {colour}"></span>'
    )
