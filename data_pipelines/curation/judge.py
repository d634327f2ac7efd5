"""Is the chosen answer right, is the question unambiguous, is the rejected answer worse?

A judge reads what a candidate `reads` (captions, or the answer that came with the question) and
both answers, never the video and never the truth.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from data_pipelines.curation.questions import Candidate


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judge's three answers, as the paper's filter asks them, and why."""

    chosen_better: bool
    unambiguous: bool
    chosen_right: bool
    why: str = ""
    readable: bool = True

    def to_json(self) -> dict[str, Any]:
        """As a pair records it."""
        told = asdict(self)
        if told.pop("readable"):
            return told
        return {"unreadable": self.why}


class Judge(Protocol):
    """Candidate and both answers in, verdict out."""

    name: str

    def judge(self, candidate: Candidate, chosen: str, rejected: str) -> Verdict:
        """Decide."""
        ...


class RuleJudge:
    """Compares answers with what the captions say, word for word: right for a closed grammar."""

    name = "rules 1"  # count up when it judges otherwise: it is part of what pairs are made from

    def judge(self, candidate: Candidate, chosen: str, rejected: str) -> Verdict:
        """The chosen answer must be the captions' answer, and the rejected one must not."""
        return Verdict(
            chosen_better=chosen == candidate.expected != rejected,
            unambiguous=not candidate.ambiguous,
            chosen_right=chosen == candidate.expected,
            why=candidate.ambiguous or f"the captions say: {candidate.expected}",
        )


class NoJudge:
    """Accepts everything, and says so in the pair; filters that need no judge still apply."""

    name = "none"

    def judge(self, candidate: Candidate, chosen: str, rejected: str) -> Verdict:
        """Always in favour."""
        return Verdict(
            chosen_better=True, unambiguous=True, chosen_right=True, why="nobody judged this"
        )


# --------------------------------------------------------------------- a language model as judge

JUDGE_FORM = "judge 1"  # count up when it is asked or read otherwise
REMINDER = "\n\nReply with the three lines and nothing else, each ending in yes or no."
_ASKED = """You check training data for a model that answers questions about videos. You cannot \
see the video. {reads_what}

{reads}

Question: {question}
Answer 1: {chosen}
Answer 2: {rejected}

Decide three things:
1. Is Answer 1 a better answer to the question than Answer 2?
2. Is the question clear, with one answer only, as far as the text above goes?
3. Is Answer 1 right, as far as the text above goes?

Reply with exactly three lines, nothing before and nothing after:
1: yes or no
2: yes or no
3: yes or no"""
_READS_CAPTIONS = "This was written by someone who did:"
_READS_ANSWER = "This is the answer that came with the question, and it counts as right:"
_LINE = re.compile(r"\s*\**([123])\**\s*[:.)]\s*\**\s*(yes|no)\b\**\.?\s*", re.IGNORECASE)


def judge_prompt(candidate: Candidate, chosen: str, rejected: str) -> str:
    """What a language model is asked of a pair."""
    return _ASKED.format(
        reads_what=_READS_ANSWER if candidate.given else _READS_CAPTIONS,
        reads=candidate.reads,
        question=candidate.question,
        chosen=chosen,
        rejected=rejected,
    )


def read_verdict(text: str) -> Verdict | None:
    """The three answers; None unless there are exactly these three lines, in order."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    found = [_LINE.fullmatch(line) for line in lines]
    if [match and match[1] for match in found] != ["1", "2", "3"]:
        return None
    better, unambiguous, right = (one[2].lower() == "yes" for one in found if one)
    why = "the judge said: " + ", ".join(line.strip() for line in lines)
    return Verdict(chosen_better=better, unambiguous=unambiguous, chosen_right=right, why=why)


def unreadable(text: str) -> Verdict:
    """The verdict where the judge answered out of form, twice."""
    return Verdict(
        chosen_better=False,
        unambiguous=False,
        chosen_right=False,
        why=f"the judge said: {text.strip()[:200]!r}",
        readable=False,
    )
