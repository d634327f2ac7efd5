"""Questions written, and answers judged, by a language model that reads captions.

The paper has a language model write questions of eight kinds from captions, each with an answer,
and judge the pairs: is the preferred answer better, is the question unambiguous, is the answer
right. The prompts here are our own.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.curation.judge import Judged, Verdict
from data_pipelines.curation.questions import Candidate, Segment
from data_pipelines.text_models.text_model import TextModel

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

{captions}

Write one question about the video of this kind: {kind} ({meaning}). It must be answerable from the
notes, have one right answer, and not mention the notes. Give the answer too, in a short sentence.
Reply with JSON alone: {{"question": "...", "answer": "..."}}
If the notes do not allow such a question, reply with None."""

_JUDGE = """Notes on what a video shows:

{captions}

A question about the video: {question}
Answer 1: {chosen}
Answer 2: {rejected}

Decide by the notes, each with true or false:
better: answer 1 is a better answer than answer 2.
unambiguous: the notes allow only one answer to the question.
right: answer 1 is correct.
Reply with JSON alone: {{"better": ..., "unambiguous": ..., "right": ..., "why": "a few words"}}"""
_AGAIN = "\n\nYour last reply could not be read. Reply with one JSON object and nothing else."


class WrittenQuestions:
    """A `QuestionMaker` that has a language model write questions."""

    describe = "Describe in detail what is shown."

    def __init__(self, writer: TextModel):
        self._writer = writer
        self.name = f"written 1 by {writer.name}"

    def localized(
        self, captions: Sequence[str], segments: Sequence[Segment], rng: np.random.Generator
    ) -> list[Candidate]:
        """One question a segment, from its caption."""
        return self._write("localized", [[caption] for caption in captions], rng)

    def comprehensive(
        self, captions: Sequence[str], count: int, rng: np.random.Generator
    ) -> list[Candidate]:
        """`count` questions about the whole video, from all captions in order."""
        return self._write("comprehensive", [list(captions)] * count, rng)

    def _write(
        self, granularity: str, notes: Sequence[Sequence[str]], rng: np.random.Generator
    ) -> list[Candidate]:
        shares = np.array([share for share, _ in KINDS.values()])
        drawn = rng.choice(list(KINDS), size=len(notes), p=shares / shares.sum()).tolist()
        evidence = [_numbered(one) for one in notes]
        what = {"localized": "a part of a video", "comprehensive": "a video, part by part"}
        said = self._writer.complete(
            [
                _WRITE.format(
                    what=what[granularity], captions=told, kind=kind, meaning=KINDS[kind][1]
                )
                for told, kind in zip(evidence, drawn, strict=True)
            ]
        )
        made = []
        for number, (kind, told, reply) in enumerate(zip(drawn, evidence, said, strict=True)):
            found = _read(reply, {"question": str, "answer": str})
            drop = None
            if reply.strip().strip(".").casefold() == "none":
                drop = "declined", f"the writer found no question of the kind {kind!r}"
            elif found is None or not found["question"].strip():
                drop = "question_unreadable", f"the writer said: {reply[:200]}"
            made.append(
                Candidate(
                    granularity=granularity,
                    kind=kind,
                    question=found["question"].strip() if found else "",
                    segment=number if granularity == "localized" else None,
                    expected=found["answer"].strip() if found else "",
                    evidence=told,
                    drop=drop,
                )
            )
        return made


class WrittenJudge:
    """A `Judge` that asks a language model; a reply that cannot be read is asked for once more."""

    def __init__(self, model: TextModel):
        self._model = model
        self.name = f"written 1 by {model.name}"

    def judge_all(self, judged: Sequence[Judged]) -> list[Verdict]:
        """A verdict for each, in order."""
        prompts = [
            _JUDGE.format(
                captions=one.candidate.evidence,
                question=one.candidate.question,
                chosen=one.chosen,
                rejected=one.rejected,
            )
            for one in judged
        ]
        verdicts = [_verdict(reply) for reply in self._model.complete(prompts)]
        unread = [place for place, verdict in enumerate(verdicts) if not verdict.readable]
        again = self._model.complete([prompts[place] + _AGAIN for place in unread])
        for place, reply in zip(unread, again, strict=True):
            verdicts[place] = _verdict(reply)
        return verdicts


def _verdict(reply: str) -> Verdict:
    found = _read(reply, {"better": bool, "unambiguous": bool, "right": bool})
    if found is None:
        return Verdict(
            chosen_better=False,
            unambiguous=False,
            chosen_right=False,
            why=f"the judge said: {reply[:200]}",
            readable=False,
        )
    return Verdict(
        chosen_better=found["better"],
        unambiguous=found["unambiguous"],
        chosen_right=found["right"],
        why=str(found.get("why", "")),
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


def _numbered(captions: Sequence[str]) -> str:
    return "\n".join(f"{number}. {caption}" for number, caption in enumerate(captions, 1))
