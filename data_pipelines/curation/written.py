"""Questions written, and answers judged, by a language model that reads captions.

The paper has a language model write questions of eight kinds from captions, each with an answer,
and judge the pairs: is the preferred answer better, is the question unambiguous, is the answer
right. The prompts here are our own.
"""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.curation.judge import Judged, Verdict
from data_pipelines.curation.questions import Candidate, Segment
from data_pipelines.errors import InputError
from data_pipelines.prompts import VIDEO_MARK
from data_pipelines.tokenizer import SPECIAL_TOKENS

FORM = "written 2"  # count up when it is asked or read otherwise
DESCRIBE = "Describe in detail what is shown."
# The kinds of the paper's 10,000 pairs and their shares in percent (its version 3).
KINDS = {
    "temporal": (8.7, "when things happen, in what order, or for how long"),
    "action": (12.4, "what somebody or something does"),
    "causal": (11.1, "why something happens, or what comes of it"),
    "information extraction": (18.0, "a detail that can be read or seen, such as a text or number"),
    "descriptive": (12.8, "what something or somebody looks like"),
    "summarization": (7.5, "what it is about as a whole"),
    "object": (14.9, "which things there are, or how many"),
    "spatial": (13.5, "where things are, or how they move"),
}
_JSON = re.compile(r"\{.*\}", re.DOTALL)

_WRITE = """Below is what a viewer noted of {what}.

{evidence}

Write one question about the video of this kind: {kind} ({meaning}). It must be answerable from the
notes, have one right answer, and not mention the notes. Give the answer too, in a short sentence.
Reply with JSON alone: {{"question": "...", "answer": "..."}}
If the notes do not allow such a question, reply with None."""

_JUDGE = """{what}:

{evidence}

A question about the video: {question}
Answer 1: {first}
Answer 2: {second}

Decide by the text above, each with true or false:
better: answer {chosen} is a better answer than answer {rejected}.
unambiguous: the text above allows only one answer to the question.
right: answer {chosen} is correct.
Reply with JSON alone: {{"better": ..., "unambiguous": ..., "right": ..., "why": "a few words"}}"""
AGAIN = "\n\nYour last reply could not be read. Reply with one JSON object and nothing else."


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

    Those about the whole video are spread: a kind comes up as often as its share says, but twice
    only when its share asks for more than one, since the same prompt would get the same question.
    """
    shares = {name: share for name, (share, _) in KINDS.items()} | (
        {name: kinds.get(name, 0.0) for name in KINDS} if kinds else {}
    )
    names = [name for name, share in shares.items() if share > 0]
    weights = np.array([shares[name] for name in names])
    weights /= weights.sum()
    localized = [str(rng.choice(names, p=weights)) for _ in range(segments)]
    order = rng.permutation(len(names))
    edges = np.cumsum(weights[order]) * whole
    at = np.searchsorted(edges[:-1], rng.random() + np.arange(whole), side="right")
    return localized, [names[order[number]] for number in at]


def localized_prompt(kind: str, caption: str, segment: Segment) -> str:
    """What is asked for a question about one segment."""
    what = f"a part of a video, from {segment[0]:.0f} to {segment[1]:.0f} seconds"
    return _WRITE.format(what=what, evidence=caption, kind=kind, meaning=KINDS[kind][1])


def comprehensive_prompt(kind: str, story: str) -> str:
    """What is asked for a question about the whole video; `story` as of `in_order`."""
    what = "a video, part by part"
    return _WRITE.format(what=what, evidence=story, kind=kind, meaning=KINDS[kind][1])


def in_order(captions: Sequence[str], segments: Sequence[Segment]) -> str:
    """The captions of a video with their times, a line each."""
    return "\n".join(
        f"{start:.0f} to {end:.0f} s: {caption}"
        for caption, (start, end) in zip(captions, segments, strict=True)
    )


def read_question(text: str) -> tuple[str, str] | str | None:
    """(question, answer); why there is none, if the writer declined; None if out of form."""
    if text.strip().strip(".").casefold() == "none":
        return "the writer found no question of this kind"
    found = _read(text, {"question": str, "answer": str})
    # What a template means something by would end the turn, or stand for a video.
    if not found or any(mark in found["question"] for mark in (*SPECIAL_TOKENS, VIDEO_MARK)):
        return None
    question = found["question"].strip()
    return (question, found["answer"].strip()) if question else None


def written_candidate(
    text: str | None, *, granularity: str, kind: str, segment: int | None, evidence: str
) -> Candidate:
    """The candidate that a writer's text is, or tells why it is none; None for nothing asked."""
    found = None if text is None else read_question(text)
    question, answer = found if isinstance(found, tuple) else ("", "")
    drop = None
    if text is None:
        drop = "no_caption", "the captioner said nothing, so there is nothing to ask about"
    elif isinstance(found, str):
        drop = "declined", found
    elif found is None:
        drop = "question_unreadable", f"the writer said: {text[:200]}"
    return Candidate(
        granularity=granularity,
        kind=kind,
        question=question,
        segment=segment,
        expected=answer,
        evidence=evidence,
        drop=drop,
    )


def judge_prompt(judged: Judged) -> str:
    """What a language model is asked of a pair.

    The chosen answer stands first in half of them, by what they say: judges favour a place.
    """
    candidate = judged.candidate
    answers, chosen = [judged.chosen, judged.rejected], 1
    if zlib.crc32("\n".join([candidate.question, *answers]).encode()) % 2:
        answers, chosen = answers[::-1], 2
    what = "Notes on what a video shows"
    if candidate.given:
        what = "The answer that came with a question about a video; it counts as right"
    return _JUDGE.format(
        what=what,
        evidence=candidate.evidence,
        question=candidate.question,
        first=answers[0],
        second=answers[1],
        chosen=chosen,
        rejected=3 - chosen,
    )


def read_verdict(reply: str) -> Verdict | None:
    """The judge's three; None unless there is a JSON object with them."""
    found = _read(reply, {"better": bool, "unambiguous": bool, "right": bool})
    if found is None:
        return None
    return Verdict(
        chosen_better=found["better"],
        unambiguous=found["unambiguous"],
        chosen_right=found["right"],
        why=str(found.get("why", "")),
    )


def unreadable(reply: str) -> Verdict:
    """The verdict where the judge answered out of form, twice."""
    return Verdict(
        chosen_better=False,
        unambiguous=False,
        chosen_right=False,
        why=f"the judge said: {reply[:200]}",
        readable=False,
    )


def _read(reply: str, fields: dict[str, type]) -> dict[str, Any] | None:
    """The JSON object in a reply if it has these fields of these types, else None."""
    found = _JSON.search(reply)
    try:
        content = json.loads(found[0]) if found else None
    except json.JSONDecodeError:
        return None
    if not isinstance(content, dict):
        return None
    right = all(type(content.get(name)) is kind for name, kind in fields.items())
    return content if right else None
