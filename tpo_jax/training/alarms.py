"""What the metrics of a run warn of: pure functions over their history."""

from collections.abc import Mapping, Sequence

import numpy as np

WINDOW = 20
# Standard errors that a change must exceed. At 3, chance alone seldom does it in a whole run.
DEVIATIONS = 3.0


def likelihood_alarm(history: Sequence[Mapping[str, float]], *, window: int = WINDOW) -> str | None:
    """A sentence when chosen answers become less likely while the margin grows; else None.

    A loss on pairs only asks that the chosen answer gains on the rejected one. It can have that
    by making both less likely, and then the policy says something else instead. The margin and
    the accuracy look well all the while.

    The last `window` steps are compared with the `window` before them, by `reward_chosen` and
    `reward_margin`. The reward is beta times how far the log-prob moved from the reference on the
    same rows; the log-prob itself goes up and down with the length of a batch's answers. Only a
    reward below 0, so a chosen answer less likely than before training, counts.

    Args:
      history: the metrics of all steps so far, one mapping a step.
      window: steps on either side.
    """
    rows = [row for row in history[-2 * window :] if "reward_chosen" in row]
    if len(rows) < 2 * window:
        return None
    chosen, margin = (
        np.array([row[name] for row in rows]).reshape(2, window)
        for name in ("reward_chosen", "reward_margin")
    )
    (before, after), (narrow, wide) = chosen.mean(axis=1), margin.mean(axis=1)
    if not (after < 0 and _fell(chosen) and _fell(-margin)):
        return None
    return (
        f"chosen answers become less likely while the margin grows: over the last {window} steps "
        f"their reward is {after:.3g} (before: {before:.3g}), the margin {wide:.3g} (before: "
        f"{narrow:.3g}); raise config.loss.sft_weight or config.loss.beta, or lower "
        "config.train.learning_rate"
    )


def _fell(values_2W: np.ndarray) -> bool:
    """Whether the second window's mean is lower by more than chance makes it."""
    before, after = values_2W.mean(axis=1)
    error = np.sqrt(values_2W.var(axis=1, ddof=1).sum() / values_2W.shape[1])
    return bool(before - after > DEVIATIONS * error)
