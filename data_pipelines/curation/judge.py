"""Is the chosen answer right, is the question unambiguous, is the rejected answer worse?

A judge reads captions and answers, never the video and never the truth.
"""

from collections.abc import Sequence
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
    readable: bool = True  # False: what the judge said was no verdict

    def to_json(self) -> dict[str, Any]:
        """As a pair records it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a judge decides about."""

    candidate: Candidate
    chosen: str
    rejected: str


class Judge(Protocol):
    """Candidates and both answers in, verdicts out."""

    name: str

    def judge_all(self, judged: Sequence[Judged]) -> list[Verdict]:
        """Decide about each, in order."""
        ...


class RuleJudge:
    """Compares answers with what the captions say, word for word: right for a closed grammar."""

    name = "rules 1"  # count up when it judges otherwise: it is part of what pairs are made from

    def judge_all(self, judged: Sequence[Judged]) -> list[Verdict]:
        """Each by itself."""
        return [self.judge(one.candidate, one.chosen, one.rejected) for one in judged]

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

    def judge_all(self, judged: Sequence[Judged]) -> list[Verdict]:
        """Always in favour."""
        why = "nobody judged this"
        return [
            Verdict(chosen_better=True, unambiguous=True, chosen_right=True, why=why)
            for _ in judged
        ]
