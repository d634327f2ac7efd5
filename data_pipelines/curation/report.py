"""A page on a folder of pairs: what became of the candidates, and some of them to look at.

Everything is read from the folder, and no filter or negative is known here by name but "mix", so
that new ones show up by themselves.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from data_pipelines.artefacts import read_manifest
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.json_text import parse_json
from data_pipelines.pages import Page
from data_pipelines.pair_counts import measure_lengths, split_words
from data_pipelines.pair_pages import SHEET_FRAMES, show_frames
from data_pipelines.pairs import Pair, read_pairs
from data_pipelines.sampling import spread

MIX = "mix"  # what is dropped at the very end, for no fault of its own
EXAMPLES = 2  # of each filter, in the table
COMMON = 10  # answers listed
SHORT = 160  # letters of a text in a table
# What a candidate had been through when it was dropped.
UNASKED, UNJUDGED, JUDGED, SURPLUS = "before answering", "by its answers", "by the verdict", "mix"
STAGES = (UNASKED, UNJUDGED, JUDGED, SURPLUS)


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A candidate that is no pair: as far as it came, the filter's name, and its reason."""

    pair: Pair
    filter: str
    reason: str

    @property
    def stage(self) -> str:
        """When it was dropped, one of STAGES, told by what it holds."""
        if self.filter == MIX:
            return SURPLUS
        if self.pair.judge_said:
            return JUDGED
        return UNJUDGED if self.pair.chosen or self.pair.rejected else UNASKED


@dataclass(frozen=True, kw_only=True)
class Curation:
    """A folder of pairs, read."""

    pairs: list[Pair]
    dropped: list[Dropped]
    manifest: dict[str, Any]


def read_curation(folder: Path) -> Curation:
    """Read pairs.jsonl, dropped.jsonl where there is one, and the manifest.

    Raises:
      InputError: a file is missing or damaged; names the file and the line.
    """
    manifest = read_manifest(folder, "pairs")
    path = folder / "dropped.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return Curation(
        pairs=read_pairs(folder / "pairs.jsonl"),
        dropped=[_read_dropped(line, f"{path}:{number}") for number, line in enumerate(lines, 1)],
        manifest=manifest,
    )


def _read_dropped(line: str, where: str) -> Dropped:
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not a JSON object, so not a dropped pair")
    needed = [f.name for f in fields(Pair) if f.default is MISSING and f.default_factory is MISSING]
    for name in ("filter", "reason", *needed):
        if name not in entry:
            raise InputError(f"{where}: the dropped pair has no field {name!r}")
    # A dropped candidate may tell more than a pair has; the page shows what a pair has.
    known = {f.name: entry[f.name] for f in fields(Pair) if f.name in entry}
    return Dropped(pair=Pair(**known), filter=entry["filter"], reason=entry["reason"])


def funnel_steps(curation: Curation) -> list[tuple[str, int, int]]:
    """From candidates to pairs: (what happened, how many are left, how many went).

    Candidates go in the order of STAGES, and within a stage by the filter that took most.
    """
    left = len(curation.pairs) + len(curation.dropped)
    steps = [("candidates", left, 0)]
    gone = Counter((one.stage, one.filter) for one in curation.dropped)
    order = sorted(gone, key=lambda key: (STAGES.index(key[0]), -gone[key], key[1]))
    for stage, name in order:
        left -= gone[stage, name]
        told = name if stage == SURPLUS else f"{name}, {stage}"
        steps.append((told, left, gone[stage, name]))
    return [*steps, ("pairs", len(curation.pairs), 0)]


def curation_page(
    title: str, curation: Curation, store: FrameStore, *, shown: int = 12, dropped_shown: int = 6
) -> Page:
    """The page.

    Args:
      title: of the page.
      curation: what is told.
      store: holds the videos of all pairs.
      shown: pairs to look at, at most, uniform over all.
      dropped_shown: dropped ones, at most; filters take turns.

    Raises:
      InputError: a video or a frame of a pair that is shown is not in the store.
    """
    page = Page(title)
    pairs, dropped = curation.pairs, curation.dropped
    candidates = len(pairs) + len(dropped)
    page.text(
        f"{len(pairs)} pairs of {candidates} candidates ({len(pairs) / max(candidates, 1):.1%}), "
        f"about {len({pair.video_id for pair in pairs})} of {len(store.videos)} videos."
    )
    page.heading("From candidates to pairs")
    page.funnel(funnel_steps(curation), "Each bar is what is left; the pale part went there.")
    _add_reasons(page, dropped)
    _add_mix(page, pairs)
    _add_lengths(page, pairs)
    _add_common(page, pairs)
    _add_settings(page, curation.manifest)
    places = spread(range(len(pairs)), shown).tolist() if pairs and shown else []
    if places:
        page.heading(f"Pairs: {len(places)} of {len(pairs)}")
        page.text(
            "Each answer below the frames it was made from; words that the other answer has not "
            "are marked. Training shows other frames, the same for both."
        )
    for place in places:
        show_difference(page, pairs[place], store)
    taken = take_turns(dropped, dropped_shown)
    if taken:
        page.heading(f"Dropped: {len(taken)} of {len(dropped)}")
    for one in taken:
        page.text(f"{one.filter}: {one.reason}")
        show_difference(page, one.pair, store)
    return page


def take_turns(dropped: Sequence[Dropped], count: int) -> list[Dropped]:
    """At most `count`: one of each filter by name, then a second of each, and so on."""
    rank: Counter[str] = Counter()
    order = []
    for number, one in enumerate(dropped):
        order.append((rank[one.filter], one.filter, number))
        rank[one.filter] += 1
    return [dropped[number] for _, _, number in sorted(order)[:count]]


def show_difference(page: Page, pair: Pair, store: FrameStore) -> None:
    """Adds a pair or a candidate: question, frames of each side, answers, the judge's words."""
    about = [pair.granularity, pair.kind, pair.negative, store.info(pair.video_id).names[0]]
    if pair.segment is not None:
        about.append(f"segment {pair.segment[0]:.1f}-{pair.segment[1]:.1f} s")
    page.text(f"{', '.join(part for part in about if part)}\n{pair.id}: {pair.question}")
    for side, positions in (("chosen", pair.chosen_frames), ("rejected", pair.rejected_frames)):
        if positions:
            caption = f"{side}: made from {_count(len(positions), 'frame')}"
            show_frames(page, store, pair.video_id, positions, caption, SHEET_FRAMES)
    if pair.chosen or pair.rejected:
        page.differences("chosen", pair.chosen, "rejected", pair.rejected or "")
    if pair.judge_said:
        words = [[name, _told(value)] for name, value in pair.judge_said.items()]
        page.table([f"judge: {pair.judge}", "said"], words)


def _add_reasons(page: Page, dropped: Sequence[Dropped]) -> None:
    if not dropped:
        return
    page.heading("Why candidates were dropped")
    rows = []
    for name, count in _ranked(one.filter for one in dropped):
        of_it = [one for one in dropped if one.filter == name]
        reasons = _ranked(one.reason for one in of_it)
        # The reasons said most often; where all say the same, two candidates of it.
        examples = [
            next(one for one in of_it if one.reason == reason) for reason, _ in reasons[:EXAMPLES]
        ]
        examples += [one for one in of_it if one not in examples][: EXAMPLES - len(examples)]
        rows.append([name, count, "\n".join(_short(_example(one)) for one in examples)])
    page.table(["filter", "dropped", "for example"], rows)


def _example(one: Dropped) -> str:
    pair = one.pair
    said = f" | chosen: {pair.chosen} | rejected: {pair.rejected}" if pair.chosen else ""
    return f"{one.reason} | {pair.question}{said}"


def _add_mix(page: Page, pairs: Sequence[Pair]) -> None:
    page.heading("What the pairs are")
    rows = []
    for name in ("granularity", "negative", "kind", "round", "generator", "judge"):
        for value, count in _ranked(str(getattr(pair, name)) for pair in pairs):
            rows.append([name, value or "not told", str(count), f"{count / len(pairs):.1%}"])
    page.table(["field", "value", "pairs", "share"], rows)


def _add_lengths(page: Page, pairs: Sequence[Pair]) -> None:
    both = [pair for pair in pairs if pair.rejected is not None]
    if not both:
        return
    words = {
        "chosen": [len(split_words(pair.chosen)) for pair in both],
        "rejected": [len(split_words(pair.rejected or "")) for pair in both],
    }
    lengths = {side: measure_lengths(values) for side, values in words.items()}
    bins = sorted(
        {label for one in lengths.values() for label in one.histogram},
        key=lambda label: int(label.split("-")[0]),
    )
    longer = sum(one > other for one, other in zip(*words.values(), strict=True))
    shorter = sum(one < other for one, other in zip(*words.values(), strict=True))
    page.heading("How long the answers are, in words")
    page.counts(
        bins,
        {side: [one.histogram.get(label, 0) for label in bins] for side, one in lengths.items()},
        ", ".join(f"{side}: mean {one.mean:.1f}" for side, one in lengths.items())
        + f"; the chosen answer is longer in {longer / len(both):.1%} and shorter in "
        f"{shorter / len(both):.1%} of the pairs. Where one side is longer throughout, length is "
        "what training learns first.",
    )


def _add_common(page: Page, pairs: Sequence[Pair]) -> None:
    sides = {
        "chosen": Counter(_normal(pair.chosen) for pair in pairs),
        "rejected": Counter(_normal(pair.rejected) for pair in pairs if pair.rejected is not None),
    }
    top = [{answer for answer, _ in counts.most_common(COMMON)} for counts in sides.values()]
    answers = sorted(
        set.union(*top), key=lambda answer: (-sum(c[answer] for c in sides.values()), answer)
    )
    page.heading("The most common answers")
    page.counts(
        [_short(answer) for answer in answers],
        {side: [counts[answer] for answer in answers] for side, counts in sides.items()},
        ", ".join(
            f"{_count(len(counts), f'different {side} answer')}" for side, counts in sides.items()
        )
        + ". An answer on one side only can be learned without looking.",
    )


def _add_settings(page: Page, manifest: dict[str, Any]) -> None:
    page.heading("Made from")
    made_from = manifest.get("made_from", {})
    page.table(["what", "value"], [[name, _told(value)] for name, value in made_from.items()])


def _normal(text: str | None) -> str:
    return " ".join((text or "").split()).casefold()


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _ranked(values: Iterable[str]) -> list[tuple[str, int]]:
    """The most frequent first, then by alphabet."""
    return sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
