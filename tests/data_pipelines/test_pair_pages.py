"""Pages of pairs: which frames stand by which answer, and boxes whose ids can be saved."""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.page_marks import SCRIPT
from data_pipelines.pages import Page
from data_pipelines.pair_pages import SHEET_FRAMES, marking_page, show_pair
from data_pipelines.pairs import Pair
from data_pipelines.sampling import FramePolicy
from tests.data_pipelines.test_pages import Reader
from tests.data_pipelines.test_pairs import PAIR

SECONDS = re.compile(r"[\d.]+ s$")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> FrameStore:
    root = tmp_path_factory.mktemp("store")
    video = make_video(root / "cat.mp4", count=20, fps=10)
    build_store(
        [video],
        root / "frames",
        frame_policy=FramePolicy(fps=10.0),
        image_policy=ImagePolicy(size=16),
    )
    return FrameStore.open(root / "frames")


@pytest.fixture
def pair(store: FrameStore) -> Pair:
    return replace(PAIR, video_id=store.videos[0])


def sheets(page: Page) -> list[list[str]]:
    """The times on each sheet, by the captions that follow."""
    found: list[list[str]] = [[]]
    for text in Reader(page.render()).texts:
        if SECONDS.match(text):
            found[-1].append(text)
        elif text.startswith(("chosen:", "rejected:", "answer:")):
            found.append([])
    return found[:-1]


def test_each_answer_stands_below_its_own_frames(store: FrameStore, pair: Pair) -> None:
    page = Page("pairs")
    show_pair(page, pair, store, shown=3)
    assert sheets(page) == [["0.3 s", "0.4 s"], ["0.0 s", "0.9 s"]]
    assert "localized (irrelevant), segment 2-3 s, cat.mp4" in page.render()


def test_answers_from_elsewhere_share_the_frames_of_training(store: FrameStore, pair: Pair) -> None:
    given = replace(pair, chosen_frames=[], rejected_frames=[], segment=None)
    both, plain = Page("a"), Page("b")
    show_pair(both, given, store, shown=3)
    show_pair(plain, replace(given, rejected=None), store, shown=3)
    assert sheets(both) == sheets(plain) == [["0.0 s", "0.9 s", "1.9 s"]]
    assert "chosen: The stars are red.\nrejected: The stars are blue." in both.render()
    assert "rejected" not in "".join(Reader(plain.render()).texts)


def test_a_page_for_marking_has_a_box_a_pair_and_one_script(store: FrameStore, pair: Pair) -> None:
    evil = '"><script>alert(1)</script>'
    pairs = [replace(pair, id=evil), *(replace(pair, id=f"n{n}") for n in range(4))]
    text = marking_page(evil, pairs, store, limit=3).render()
    read = Reader(text)
    boxes = [a["data-id"] for tag, a in read.tags if tag == "input"]
    assert boxes == [evil, "n1", "n3"] and "3 of 5 pairs" in text
    assert [tag for tag, _ in read.tags].count("script") == 1
    # The browser runs the script only if the policy has its hash.
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in read.tags if t == "meta" and "http-equiv" in a]
    assert policy and policy.startswith("default-src 'none'")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert script == SCRIPT and "</" not in script
    ids = {a["id"] for _, a in read.tags if a.get("id")}
    assert set(re.findall(r'getElementById\("(\w+)"\)', script)) == ids == {"marked", "save"}


def test_sheets_for_marking_are_short(store: FrameStore, pair: Pair) -> None:
    long = replace(pair, chosen_frames=list(range(20)))
    found = sheets(marking_page("a", [long], store, limit=9))
    assert len(found[0]) == SHEET_FRAMES and (found[0][0], found[0][-1]) == ("0.0 s", "1.9 s")


def test_what_cannot_be_shown(store: FrameStore, pair: Pair) -> None:
    with pytest.raises(InputError, match="'n': is on the page already"):
        marking_page("a", [replace(pair, id="n")] * 2, store, limit=2)
    with pytest.raises(InputError, match="is not among the 1 stored"):
        marking_page("a", [replace(pair, video_id="ab")], store, limit=2)
    with pytest.raises(InputError, match="has 20 stored frames, asked for"):
        marking_page("a", [replace(pair, chosen_frames=[99])], store, limit=2)


def test_a_page_without_boxes_has_no_script() -> None:
    text = Page("a").render()
    assert "script" not in text and "mark" not in text.split("<body>")[1]
