"""Signs that a model is broken and not merely wrong: a score alone does not tell.

A checkpoint that was loaded wrongly says "!!!!" to everything, and still scores: where an answer
that cannot be read counts as a guess, or as A, it does so as well as chance.
"""

import re
from collections import Counter
from collections.abc import Sequence

from benchmarks.task_run import Said
from benchmarks.tasks.task import Scored

FEWEST = 20  # answers before any of this is said
SHARE = 0.5  # of the answers
SAME_SHARE = 0.95
_ONE_CHARACTER = re.compile(r"(\S)\1{3,}\W*")


def is_degenerate(said: str) -> bool:
    """Nothing at all, or one character over and over, or a few words over and over."""
    text = said.strip()
    words = text.split()
    return (
        not text
        or _ONE_CHARACTER.fullmatch(text) is not None
        or "\N{REPLACEMENT CHARACTER}" in text
        or (len(words) >= 8 and len(set(words)) <= 2)
    )


def warnings_of(said: Sequence[Said], options: bool = True) -> dict[str, str]:
    """What to shout about, a line for each sign ("degenerate", "same", "cut"); {} of few answers.

    Args:
      said: the answers so far.
      options: the items have options: one answer to nearly all of them is no good sign.
    """
    if len(said) < FEWEST:
        return {}
    found = {}
    broken = [one.said for one in said if is_degenerate(one.said)]
    if len(broken) >= SHARE * len(said):
        found["degenerate"] = (
            f"{len(broken)} of {len(said)} answers are degenerate, such as {broken[-1][:40]!r}: "
            "is it the right checkpoint, and the right prompt for it?"
        )
    text, count = Counter(one.said.strip() for one in said).most_common(1)[0]
    if options and count >= SAME_SHARE * len(said) and not is_degenerate(text):
        found["same"] = f"{count} of {len(said)} answers are the same: {text[:40]!r}"
    cut = sum(not one.finished for one in said)
    if cut >= SHARE * len(said):
        found["cut"] = (
            f"{cut} of {len(said)} answers were cut off by max_new_tokens, such as "
            f"{next(one.said for one in said if not one.finished)[:40]!r}: is it the right prompt?"
        )
    return found


def unreadable(scored: Sequence[Scored]) -> list[str]:
    """A line if the task's rule found no answer in half of what was said or more."""
    lost = sum(not one.parsed for one in scored)
    if lost < SHARE * len(scored):
        return []
    return [f"in {lost} of {len(scored)} answers the rule found no option: their score says little"]
