"""Pairs to look at: the question, and each answer below the frames it was made from."""

from collections.abc import Sequence

from data_pipelines.frames import FrameStore
from data_pipelines.pages import Page
from data_pipelines.pairs import Pair, train_frames
from data_pipelines.sampling import spread

SHEET_FRAMES = 12  # of a sheet on the page for marking; every one makes the page heavier


def show_pair(
    page: Page, pair: Pair, store: FrameStore, shown: int, most: int | None = None
) -> None:
    """Adds a pair to a page.

    Args:
      page: grows.
      pair: its video must be in the store.
      store: where the frames are.
      shown: how many frames training shows; answers that came from elsewhere stand below those.
      most: frames of a sheet at most, uniform over them; None for all.

    Raises:
      InputError: the video or a frame is not in the store.
    """
    info = store.info(pair.video_id)
    name = info.names[0]
    if pair.rejected is None:
        page.text(f"{name}\n{pair.question}")
    else:
        where = (
            ""
            if pair.segment is None
            else f", segment {pair.segment[0]:.0f}-{pair.segment[1]:.0f} s"
        )
        page.text(f"{pair.granularity} ({pair.negative}){where}, {name}\n{pair.question}")
    whole = train_frames(len(info.times_F), shown).tolist()
    chosen, rejected = f"chosen: {pair.chosen}", f"rejected: {pair.rejected}"
    if pair.rejected is None:
        show_frames(
            page, store, pair.video_id, pair.chosen_frames or whole, f"answer: {pair.chosen}", most
        )
    elif not pair.chosen_frames and not pair.rejected_frames:
        show_frames(page, store, pair.video_id, whole, f"{chosen}\n{rejected}", most)
    else:
        show_frames(page, store, pair.video_id, pair.chosen_frames or whole, chosen, most)
        show_frames(page, store, pair.video_id, pair.rejected_frames or whole, rejected, most)


def marking_page(
    title: str, pairs: Sequence[Pair], store: FrameStore, limit: int, about: str = ""
) -> Page:
    """A page to look through pairs, mark bad ones and save their ids.

    Args:
      title: of the page; the browser keeps marks under it.
      pairs: at least one.
      store: holds their videos.
      limit: how many are shown at most, uniform over all.
      about: a paragraph at the top.

    Raises:
      InputError: a video or a frame is not in the store.
    """
    page = Page(title)
    if about:
        page.text(about)
    places = spread(range(len(pairs)), limit).tolist()
    page.text(f"{len(places)} of {len(pairs)} pairs. Tick what is bad, then save the ids below.")
    for number in places:
        pair = pairs[number]
        page.heading(f"{number + 1}: {pair.id}")
        show_pair(page, pair, store, SHEET_FRAMES, most=SHEET_FRAMES)
        page.mark(pair.id, "bad")
    return page


def show_frames(
    page: Page,
    store: FrameStore,
    video_id: str,
    positions: list[int],
    caption: str,
    most: int | None = None,
) -> None:
    """Adds stored frames of a video with their times, `most` of them at most, uniform over them.

    Raises:
      InputError: the video or a frame is not in the store.
    """
    if most is not None:
        positions = spread(positions, most).tolist()
    times_F = store.info(video_id).times_F
    # A position that is not there is refused by the store, which names it, before its time is read.
    frames = store.frames(video_id, positions)
    labels = [f"{times_F[position]:.1f} s" for position in positions]
    page.contact_sheet(frames, labels, caption=caption)
