"""Is the chosen answer right, is the question unambiguous, is the rejected answer worse?

A judge reads captions and answers, never the video and never the truth.
"""

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

    def to_json(self) -> dict[str, Any]:
        """As a pair records it."""
        return asdict(self)


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
