"""Our model, row layout and loss give the numbers that the authors' classes gave."""

import pytest

from tests.golden import FAMILIES, golden_folder
from tpo_jax.cli.verify import case_batch
from tpo_jax.interop.golden_case import read_case
from tpo_jax.interop.verify import UNSEEN_BIAS_NOTE, Comparison, compare, measure


@pytest.fixture(scope="module", params=FAMILIES)
def golden(request: pytest.FixtureRequest) -> list[Comparison]:
    """Compiled as in training."""
    case = read_case(golden_folder(request.param))
    return compare(case, *measure(case, case_batch(case)))


def test_every_number_is_the_recorded_one(golden: list[Comparison]) -> None:
    assert [row for row in golden if not row.passed] == []


def test_nothing_is_left_out_and_no_tolerance_is_wide(golden: list[Comparison]) -> None:
    """Against a rule that has become lax, whatever it calls a pass."""
    rows = {row.name: row for row in golden}
    widest = {"vision_features": 2e-4, "visual_tokens": 2e-4}
    widest |= {"chosen_logits": 2e-4, "rejected_logits": 2e-4}
    widest |= {
        f"{model}_{answer}_logp": 1e-3
        for model in ("policy", "reference")
        for answer in ("chosen", "rejected")
    }
    widest |= {"dpo_loss": 1e-5, "sft_loss": 1e-5, "loss": 1e-5}
    for name, tolerance in widest.items():
        assert rows.pop(name).max_abs <= tolerance
    assert len(rows) > 80
    for row in rows.values():
        if row.note == UNSEEN_BIAS_NOTE:
            assert row.max_abs <= 1e-6
        elif row.of == "relative":
            assert row.relative <= 1e-3
        else:
            assert row.max_abs == 0
    unseen = [row for row in rows.values() if row.note == UNSEEN_BIAS_NOTE]
    assert len(unseen) == 3  # the tower's three layers that are run
    assert rows[next(name for name in rows if name.endswith("patch_embedding.weight"))].passed
