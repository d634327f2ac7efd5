"""A base is taken only where it sees well and does not yet look in the right place."""

from typing import Any

import pytest

from tpo_jax.cli.base_acceptance import (
    GOLD_AT_LEAST,
    WHOLE_ABOVE_CHANCE,
    WHOLE_AT_MOST,
    check_base,
)
from tpo_jax.errors import InputError

CHANCE = 0.2
LOW = CHANCE + WHOLE_ABOVE_CHANCE


def told(gold: float, whole: float) -> dict[str, Any]:
    # Groups other than "localized" decide nothing.
    others = {"all": 0.0, "comprehensive": 1.0}
    return {
        "gold": {"localized": gold} | others,
        "gold_chance": {"localized": 0.9},
        "whole": {"localized": whole} | others,
        "whole_chance": {"localized": CHANCE} | others,
    }


@pytest.mark.parametrize("gold", [GOLD_AT_LEAST, 0.95, 1.0])
@pytest.mark.parametrize("whole", [LOW, 0.45, WHOLE_AT_MOST])
def test_what_lies_between_the_bounds_is_taken(gold: float, whole: float) -> None:
    check_base(told(gold, whole))


@pytest.mark.parametrize(
    ("gold", "whole", "said"),
    [
        (GOLD_AT_LEAST - 1e-6, 0.45, "does not see well enough.* teach it longer"),
        (0.5, 0.45, r"it answers 50\.0% of the questions .* and 85% are needed"),
        (0.0, 0.9, "does not see well enough"),  # the worse of two failings is named
        (float("nan"), 0.45, "does not see well enough"),
        (0.9, LOW - 1e-6, r"needs 30\.0% to 60%"),
        (0.9, 0.21, r"answers 21\.0% of .* whole development videos.*overlooked"),
        (0.9, WHOLE_AT_MOST + 1e-6, r"needs 30\.0% to 60%: above, there is nothing to learn"),
        (0.9, float("nan"), "whole development videos"),
    ],
)
def test_what_lies_beyond_them_is_refused(gold: float, whole: float, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        check_base(told(gold, whole))
    assert "\n" not in str(error.value)
