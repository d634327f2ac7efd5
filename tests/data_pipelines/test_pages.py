"""Pages: whole, closed to the outside, escaped, and the same from the same parts."""

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.pages import THUMBNAIL, Page, Panel

EVIL = '<script>alert("x")</script> & \'$a_b$'
VOID = {"meta", "img", "hr", "br", "input"}


class Reader(HTMLParser):
    """Checks that tags are closed in order, and keeps tags, ids and texts."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    return file.getvalue()


def full_page(words: str) -> Page:
    page = Page(words)
    page.heading(words)
    page.text(words)
    page.table([words, "n"], [[words, 1], ["b", 2.5]])
    page.image(png(), alt=words, caption=words)
    series = {words: ([0, 1, 2], [1.0, float("nan"), 2.0]), "one": ([0], [1.0])}
    page.curves(
        [
            Panel(title=words, y_label=words, x_label=words, series=series),
            Panel(title="second", y_label="nats", series={"one": ([0, 1], [3, 4])}),
        ],
        caption=words,
    )
    page.bars([words], {words: [(0.5, 0.25, 0.75)]}, chance=[0.125], caption=words)
    page.contact_sheet(np.zeros((2, 8, 8, 3), np.uint8), [words, "b"], {1}, caption=words)
    return page


def test_a_page_with_everything_is_well_formed_and_loads_nothing() -> None:
    text = full_page("plain words").render()
    read = Reader(text)
    assert text.startswith("<!doctype html>")
    assert {"h1", "h2", "p", "table", "svg", "img", "figcaption"} <= {tag for tag, _ in read.tags}
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#"))
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    (policy,) = [a["content"] for t, a in read.tags if t == "meta" and "http-equiv" in a]
    assert policy and policy.startswith("default-src 'none'")


def test_all_text_is_escaped() -> None:
    text = full_page(EVIL).render()
    read = Reader(text)
    assert "script" not in {tag for tag, _ in read.tags}
    # Title twice, heading, text, table 2, captions 4, panel title, y and x label, series in the
    # curves' legend and in the bars', group, frame label.
    assert sum(EVIL in part for part in read.texts) == 17
    assert EVIL in {attributes.get("alt") for _, attributes in read.tags}


def test_the_same_parts_give_the_same_page() -> None:
    assert full_page("a").render() == full_page("a").render()
    page = full_page("a")
    assert page.render() == page.render()


def test_curves_take_their_ink_from_the_page_and_share_colours() -> None:
    page = Page("curves")
    x = np.arange(5)
    page.curves(
        [
            Panel(title="one", y_label="y", series={"a": (x, x), "b": (x, -x)}),
            Panel(title="two", y_label="y", series={"b": (x, x**2)}),
        ]
    )
    text = page.render()
    assert text.count("<svg") == 2 and "currentColor" in text and "#010203" not in text
    first, second = text.split("<svg")[1:]
    assert "#3b82c4" in first and "#e0762f" in first
    assert "#e0762f" in second and "#3b82c4" not in second
    ids = [a["id"] for t, a in Reader(text).tags if a.get("id")]
    assert len(ids) == len(set(ids))


def test_bars_stand_where_their_numbers_are() -> None:
    page = Page("bars")
    page.bars(
        ["all", "order"],
        {"base": [(0.5, 0.4, 0.6), (0.25, 0.0, 1.0)], "tpo": [(1, 1, 1), (0, 0, 0)]},
        chance=[None, 0.5],
    )
    text = page.render()
    assert "width: 50.00%; background: #3b82c4" in text
    assert "width: 100.00%; background: #e0762f" in text
    assert 'class="whisker" style="left: 40.00%; width: 20.00%"' in text
    assert text.count('class="chance" style="left: 50.00%"') == 2
    assert "<b>50.0%</b> 40.0–60.0" in text


def test_a_contact_sheet_shows_the_frames_it_was_given() -> None:
    frames = np.zeros((3, 400, 400, 3), np.uint8)
    frames[1, ..., 0] = 255
    page = Page("frames")
    page.contact_sheet(frames, ["0 s", "1 s", "2 s"], highlight={1})
    read = Reader(page.render())
    sources = [a["src"] or "" for t, a in read.tags if t == "img"]
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
        for source in sources
    ]
    assert [picture.shape for picture in pictures] == [(THUMBNAIL, THUMBNAIL, 3)] * 3
    assert [int(picture[..., 0].mean()) > 128 for picture in pictures] == [False, True, False]
    marks = [a.get("class") for t, a in read.tags if t == "div"]
    assert marks == ["sheet", None, "highlight", None]


def test_numbers_in_a_table_stand_right() -> None:
    page = Page("table")
    page.table(
        ["name", "count", "said", "mixed"],
        [["a", 3, "+1.5 [-0.2, +3.1]", 1], ["b", 1 / 3, "", True], ["c", 1e-9, "–", 2]],
    )
    text = page.render()
    assert '<td class="number">0.3333</td>' in text and '<td class="number">1e-09</td>' in text
    assert '<th class="number">count</th>' in text and '<th class="number">said</th>' in text
    assert "<th>name</th>" in text and "<th>mixed</th>" in text and "<td>1</td>" in text
    page.table(["nothing"], [])


def test_what_does_not_fit_is_refused() -> None:
    page = Page("errors")
    with pytest.raises(InputError, match="row 1: 1 cells, 2 headers"):
        page.table(["a", "b"], [[1, 2], [1]])
    with pytest.raises(InputError, match="not the bytes of a PNG"):
        page.image(b"GIF89a", alt="moving")
    with pytest.raises(InputError, match="'loss' of 'Training': 2 x, 1 y"):
        page.curves([Panel(title="Training", y_label="", series={"loss": ([1, 2], [1])})])
    with pytest.raises(InputError, match="within 0 and 1"):
        page.bars(["all"], {"base": [(50.0, 40.0, 60.0)]})
    with pytest.raises(InputError, match="must be uint8"):
        page.contact_sheet(np.zeros((1, 4, 4, 3)), ["a"])
    with pytest.raises(InputError, match="1 frames, 2 labels"):
        page.contact_sheet(np.zeros((1, 4, 4, 3), np.uint8), ["a", "b"])


def test_matplotlib_is_only_imported_to_draw() -> None:
    code = "import sys, data_pipelines.pages; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_heat_map_is_as_dark_as_its_shares() -> None:
    page = Page("map")
    page.heat_map(["0", EVIL], ["10", "20"], [[0.25, 1.0], [None, 0.0]], "depth")
    html = page.render()
    shades = [int(share) for share in re.findall(r"color-mix\(in srgb, #\w+ (\d+)%", html)]
    assert shades == [25, 100, 0]
    assert EVIL not in html and Reader(html).open == []
    with pytest.raises(InputError, match="heat map: 1.5 must lie within 0 and 1"):
        page.heat_map(["0"], ["10"], [[1.5]])
