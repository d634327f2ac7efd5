"""What keeps a candidate from becoming a pair. Each filter has a name and gives a reason."""

from data_pipelines.curation.judge import Verdict


def reason_to_drop(
    chosen: str, rejected: str, verdict: Verdict, *, post_filter: bool = True
) -> tuple[str, str] | None:
    """(filter name, reason) of the first filter that objects, or None to keep.

    Without `post_filter` the verdict is not asked: only what cannot be a pair at all is dropped.
    """
    if not chosen or not rejected:
        return "empty", "an answer is empty"
    if chosen == rejected:
        return "identical", "both answers are the same, so there is nothing to prefer"
    if not post_filter:
        return None
    if not verdict.unambiguous:
        return "ambiguous", verdict.why
    if not verdict.chosen_right:
        return "chosen_wrong", verdict.why
    if not verdict.chosen_better:
        return "rejected_not_worse", verdict.why
    return None
