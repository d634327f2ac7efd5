"""The losses against the formulas written out with plain floats."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from tpo_jax.preference.losses import DPO, SFT, TPOLoss

POLICY = jnp.array([[[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]], [[-0.5, 0.0, 0.0], [-1.0, -1.0, -1.0]]])
REFERENCE = jnp.array(
    [[[-2.0, -2.5, 0.0], [-2.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0], [-1.5, -0.5, -0.5]]]
)
MASK = jnp.array([[[1.0, 1, 0], [1, 0, 0]], [[1, 0, 0], [1, 1, 1]]])


def margins(beta: float) -> list[float]:
    """By hand: sums of the differences, chosen less rejected."""
    return [beta * (1.5 - (-1.0)), beta * (0.5 - (-0.5))]


@pytest.mark.parametrize("beta", [0.1, 0.3, 2.0])
def test_dpo_is_the_formula(beta: float) -> None:
    loss, seen = DPO(beta=beta)(POLICY, REFERENCE)
    expected = np.mean([-math.log(1 / (1 + math.exp(-m))) for m in margins(beta)])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(seen["reward_margin"], np.mean(margins(beta)), rtol=1e-6)
    assert seen["reward_accuracy"] == 1


def test_equal_models_give_ln_2_and_no_accuracy() -> None:
    loss, seen = DPO(beta=0.1)(POLICY, POLICY)
    np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)
    assert seen["reward_margin"] == 0 and seen["reward_accuracy"] == 0


def test_sft_is_a_mean_over_tokens_then_rows() -> None:
    loss, _ = SFT()(POLICY, MASK)
    np.testing.assert_allclose(loss, np.mean([3.0 / 2, 0.5 / 1]), rtol=1e-6)


def test_tpo_is_the_weighted_sum() -> None:
    total, seen = TPOLoss(beta=0.2, dpo_weight=0.7, sft_weight=0.5)(POLICY, MASK, REFERENCE)
    expected = 0.7 * seen["dpo_loss"] + 0.5 * seen["sft_loss"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_without_dpo_no_reference_is_needed() -> None:
    loss = TPOLoss(dpo_weight=0.0)
    assert not loss.needs_reference
    total, seen = loss(POLICY[:, :1], MASK[:, :1], None)
    np.testing.assert_allclose(total, seen["sft_loss"])
    assert "dpo_loss" not in seen
