"""Questions that a language model writes from captions, of the paper's eight kinds."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.curation.questions import Candidate, Segment
from data_pipelines.errors import InputError
from data_pipelines.prompts import VIDEO_MARK
from data_pipelines.tokenizer import SPECIAL_TOKENS

WRITING_FORM = "writing 1"  # count up when it is asked or read otherwise
DESCRIBE = "Describe what is shown: who and what is there, what happens, in which order, and where."

# Name, share in percent of the paper's 10,000 pairs, and what a question of the kind asks.
KINDS: dict[str, tuple[float, str]] = {
    "temporal": (8.7, "when or in which order things happen, or how long they take"),
    "action": (12.4, "what somebody or something does"),
    "causal": (11.1, "why something happens, or what follows from it"),
    "information_extraction": (18.0, "a detail that is told: a text, a number, a name, a colour"),
    "descriptive": (12.8, "how something or somebody looks"),
    "summarization": (7.5, "what it is all about, in one or two sentences"),
    "object": (14.9, "which things are there, how many of them, or what they are used for"),
    "spatial": (13.5, "where something is, or how things lie to each other"),
}

REMINDER = "\n\nReply with the two lines or with None, and nothing else."
_ASKED = """{reads_what}

{reads}

Write one question about {what}, together with its answer. The kind of question: {kind}, that is, \
{about}. Someone who has seen {what} must be able to answer it, and there must be one right answer \
only. Do not mention captions or descriptions, and do not give the answer away in the question.

If no such question can be asked, reply with the one word None. Otherwise reply with exactly two \
lines:
Question: ...
Answer: ..."""
_READS_ONE = "This is a description of a part of a video, from {start:.0f} to {end:.0f} seconds:"
_READS_ALL = "These are descriptions of the parts of a video, in order:"
_WRITTEN = re.compile(r"\s*Question:\s*(?P<question>[^\n]+?)\s*\n+\s*Answer:\s*(?P<answer>[^\n]+)")
_DECLINED = re.compile(r"[\s\"'*]*none[\s\"'*.]*", re.IGNORECASE)


def check_kinds(kinds: Mapping[str, float]) -> None:
    """Raises InputError unless these are shares of `KINDS`, or nothing."""
    for name, share in kinds.items():
        if name not in KINDS:
            raise InputError(f"curate.kinds.{name}: must be one of {', '.join(KINDS)}")
        if not share >= 0:
            raise InputError(f"curate.kinds.{name} is {share}; must be 0 or more")
    if kinds and not sum(kinds.values()) > 0:
        raise InputError("curate.kinds: no kind has a share; give one a positive number")


def draw_kinds(
    kinds: Mapping[str, float], segments: int, whole: int, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Kinds of the questions about each segment, and of those about the whole video, by share.

    None is asked twice of the whole video before all have been.
    """
    shares = dict(kinds) or {name: share for name, (share, _) in KINDS.items()}
    shares = {name: share for name, share in shares.items() if share > 0}
    names = list(shares)
    weights = np.array(list(shares.values())) / sum(shares.values())
    localized = [str(rng.choice(names, p=weights)) for _ in range(segments)]
    comprehensive: list[str] = []
    while len(comprehensive) < whole:
        count = min(whole - len(comprehensive), len(names))
        comprehensive += [str(n) for n in rng.choice(names, size=count, replace=False, p=weights)]
    return localized, comprehensive


def localized_prompt(kind: str, caption: str, segment: Segment) -> str:
    """What is asked for a question about one segment."""
    start, end = segment
    return _ASKED.format(
        reads_what=_READS_ONE.format(start=start, end=end),
        reads=caption,
        what="this part of the video",
        kind=kind.replace("_", " "),
        about=KINDS[kind][1],
    )


def comprehensive_prompt(kind: str, story: str) -> str:
    """What is asked for a question about the whole video; `story` as of `in_order`."""
    return _ASKED.format(
        reads_what=_READS_ALL,
        reads=story,
        what="the whole video",
        kind=kind.replace("_", " "),
        about=KINDS[kind][1],
    )


def in_order(captions: Sequence[str], segments: Sequence[Segment]) -> str:
    """The captions of a video with their times, a line each."""
    return "\n".join(
        f"{start:.0f} to {end:.0f} s: {caption}"
        for caption, (start, end) in zip(captions, segments, strict=True)
    )


def read_question(text: str) -> tuple[str, str] | str | None:
    """(question, answer); why there is none, if the writer declined; None if out of form."""
    if _DECLINED.fullmatch(text):
        return "the writer sees nothing to ask"
    written = _WRITTEN.fullmatch(text.strip())
    if not written or any(mark in text for mark in (*SPECIAL_TOKENS, VIDEO_MARK)):
        return None
    return written["question"], written["answer"].strip()


def written_candidate(
    text: str, *, granularity: str, kind: str, segment: int | None, reads: str
) -> Candidate:
    """The candidate that a writer's text is, or tells why it is none."""
    found = read_question(text)
    question, answer = found if isinstance(found, tuple) else ("", "")
    refused = None
    if isinstance(found, str):
        refused = "declined", found
    elif found is None:
        refused = "question_unreadable", f"the writer said: {text.strip()[:200]!r}"
    return Candidate(
        granularity=granularity,
        kind=kind,
        question=question,
        segment=segment,
        expected=answer,
        reads=reads,
        refused=refused,
    )
