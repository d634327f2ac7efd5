"""What keeps a candidate from becoming a pair. Each filter has a name and gives a reason."""

from data_pipelines.curation.judge import Verdict
from data_pipelines.curation.text_rules import TextRules, objection_to_texts


def reason_to_drop(
    chosen: str,
    rejected: str,
    verdict: Verdict,
    *,
    post_filter: bool = True,
    texts: TextRules | None = None,
) -> tuple[str, str] | None:
    """(filter name, reason) of the first filter that objects, or None to keep.

    Without `post_filter` the verdict is not asked: only what the texts themselves say counts.
    """
    objection = objection_to_texts(chosen, rejected, texts or TextRules())
    if objection is not None or not post_filter:
        return objection
    if not verdict.readable:
        return "judge_unreadable", verdict.why
    if not verdict.unambiguous:
        return "ambiguous", verdict.why
    if not verdict.chosen_right:
        return "chosen_wrong", verdict.why
    if not verdict.chosen_better:
        return "rejected_not_worse", verdict.why
    return None
