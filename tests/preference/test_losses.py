"""The losses: by hand, against TRL's numbers, in parts of a batch, and made from options."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_jax.errors import InputError
from tpo_jax.preference.losses import (
    DPO,
    IPO,
    PREFERENCES,
    SFT,
    EveryAnswerSFT,
    Hinge,
    LengthDesensitizedDPO,
    LengthNormalizedDPO,
    Loss,
    Reduction,
    RobustDPO,
    TPOLoss,
)

POLICY = jnp.array([[[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]], [[-0.5, 0.0, 0.0], [-1.0, -1.0, -1.0]]])
REFERENCE = jnp.array(
    [[[-2.0, -2.5, 0.0], [-2.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0], [-1.5, -0.5, -0.5]]]
)
MASK = jnp.array([[[1.0, 1, 0], [1, 0, 0]], [[1, 0, 0], [1, 1, 1]]])
REDUCTIONS: tuple[Reduction, ...] = ("pair_mean", "token_mean", "sum")


def preference_losses(**common: Any) -> list[TPOLoss]:
    """One of each loss on pairs, with the options it must have."""
    options: dict[str, dict[str, Any]] = {
        "robust": {"label_smoothing": 0.1},
        "length_desensitized": {"length_alpha": 0.3},
    }
    return [TPOLoss(preference=name, **options.get(name, {}), **common) for name in PREFERENCES]  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ by hand


def margins(beta: float) -> list[float]:
    """Sums of the differences, chosen less rejected."""
    return [beta * (1.5 - (-1.0)), beta * (0.5 - (-0.5))]


@pytest.mark.parametrize("beta", [0.1, 0.3, 2.0])
def test_dpo_is_the_formula(beta: float) -> None:
    loss, seen = DPO(beta=beta)(POLICY, MASK, REFERENCE)
    expected = np.mean([-math.log(1 / (1 + math.exp(-m))) for m in margins(beta)])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(seen["reward_margin"], np.mean(margins(beta)), rtol=1e-6)
    np.testing.assert_allclose(seen["reward_chosen"], beta * (1.5 + 0.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(seen["reward_rejected"], beta * (-1.0 - 0.5) / 2, rtol=1e-6)
    assert seen["reward_accuracy"] == 1


def test_equal_models_give_ln_2_and_no_accuracy() -> None:
    loss, seen = DPO(beta=0.1)(POLICY, MASK, POLICY)
    np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)
    assert seen["reward_margin"] == 0 and seen["reward_accuracy"] == 0


@pytest.mark.parametrize("loss", preference_losses(), ids=lambda loss: loss.preference)
def test_what_a_loss_is_before_the_first_step_is_known(loss: TPOLoss) -> None:
    _, seen = loss(POLICY, MASK, POLICY)
    np.testing.assert_allclose(seen["dpo_loss"], loss.pair_loss.at_reference, rtol=1e-6)


def test_the_losses_before_the_first_step_by_hand() -> None:
    assert Hinge(beta=0.3).at_reference == 1
    assert IPO(beta=0.25).at_reference == pytest.approx(4)
    for loss in (
        DPO(beta=0.3, label_smoothing=0.2),
        RobustDPO(beta=0.3, label_smoothing=0.2),
        LengthNormalizedDPO(beta=2.0),
        LengthDesensitizedDPO(beta=0.3, length_alpha=0.5),
    ):
        assert loss.at_reference == pytest.approx(math.log(2))


def test_sft_by_hand() -> None:
    found = [float(SFT(reduction=name)(POLICY, MASK)[0]) for name in REDUCTIONS]
    np.testing.assert_allclose(found, [(3.0 / 2 + 0.5 / 1) / 2, 3.5 / 3, 3.5 / 2], rtol=1e-6)


def test_tpo_is_the_weighted_sum() -> None:
    total, seen = TPOLoss(beta=0.2, dpo_weight=0.7, sft_weight=0.5)(POLICY, MASK, REFERENCE)
    dpo, _ = DPO(beta=0.2)(POLICY, MASK, REFERENCE)
    sft, _ = SFT()(POLICY, MASK)
    np.testing.assert_allclose(total, 0.7 * dpo + 0.5 * sft, rtol=1e-6)
    np.testing.assert_allclose(seen["loss"], total)
    np.testing.assert_allclose(seen["dpo_loss"], dpo)
    np.testing.assert_allclose(seen["sft_loss"], sft)


def test_metrics_tell_log_probs_and_tokens() -> None:
    _, seen = TPOLoss(beta=0.2)(POLICY, MASK, REFERENCE)
    assert seen["logprob_chosen"] == -3.5 / 2 and seen["logprob_rejected"] == -6.0 / 2
    assert seen["supervised_tokens"] == 7


def test_without_a_weight_the_sft_term_is_gone() -> None:
    total, seen = TPOLoss(beta=0.2, sft_weight=0.0)(POLICY, MASK, REFERENCE)
    assert total == seen["dpo_loss"] and "sft_loss" not in seen


@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_sft_alone_needs_no_reference_and_no_pairs(answers: int, reduction: Reduction) -> None:
    loss = TPOLoss(dpo_weight=0.0, sft_weight=2.0, sft_reduction=reduction)
    assert not loss.needs_reference
    policy, mask = POLICY[:, :answers], MASK[:, :answers]
    total, seen = loss(policy, mask, None)
    np.testing.assert_allclose(total, 2 * SFT(reduction=reduction)(POLICY, MASK)[0])
    assert "dpo_loss" not in seen and ("logprob_rejected" in seen) == (answers == 2)
    assert seen["supervised_tokens"] == 3  # of the chosen answers
    gradient = jax.grad(lambda policy: loss(policy, mask, None)[0])(policy)
    assert not np.any(gradient[:, 1:])


def test_a_loss_on_pairs_refuses_rows_that_are_none() -> None:
    for policy, reference, what in (
        (POLICY[:, :1], REFERENCE[:, :1], "1 answers and a reference"),
        (POLICY, None, "2 answers and no reference"),
    ):
        with pytest.raises(InputError, match=what):
            TPOLoss()(policy, MASK[:, : policy.shape[1]], reference)


def test_every_answer_sft_is_a_mean_over_all_branches() -> None:
    loss, seen = EveryAnswerSFT()(POLICY, MASK, None)
    np.testing.assert_allclose(loss, (1.5 + 3.0 + 0.5 + 1.0) / 4, rtol=1e-6)
    assert seen["loss"] == seen["sft_loss"] == loss and seen["supervised_tokens"] == 7
    assert not EveryAnswerSFT().needs_reference


def test_the_reductions_differ_on_uneven_answers() -> None:
    uneven = [float(SFT(reduction=name)(POLICY, MASK)[0]) for name in REDUCTIONS]
    assert len({round(value, 3) for value in uneven}) == 3


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_the_reductions_agree_on_even_answers(length: int, seed: int) -> None:
    mask = jnp.broadcast_to((jnp.arange(4) < length).astype(jnp.float32), (3, 2, 4))
    policy = jnp.array(-np.random.default_rng(seed).random(mask.shape), jnp.float32) * mask
    pair_mean, token_mean, total = (SFT(reduction=name)(policy, mask)[0] for name in REDUCTIONS)
    np.testing.assert_allclose(pair_mean, token_mean, rtol=1e-5)
    np.testing.assert_allclose(total, length * pair_mean, rtol=1e-5)


def test_label_smoothing_turns_some_pairs_round() -> None:
    turned = [x[:, ::-1] for x in (POLICY, MASK, REFERENCE)]
    one, other = DPO(beta=0.3)(POLICY, MASK, REFERENCE)[0], DPO(beta=0.3)(*turned)[0]
    smooth = DPO(beta=0.3, label_smoothing=0.2)(POLICY, MASK, REFERENCE)[0]
    np.testing.assert_allclose(smooth, 0.8 * one + 0.2 * other, rtol=1e-6)
    robust = RobustDPO(beta=0.3, label_smoothing=0.2)
    # Unbiased: on labels of which a share is wrong it is, on average, the loss on right ones.
    average = 0.8 * robust(POLICY, MASK, REFERENCE)[0] + 0.2 * robust(*turned)[0]
    np.testing.assert_allclose(average, one, rtol=1e-6)


def test_the_tail_of_the_longer_answer_is_weighted_across_a_gap_in_the_mask() -> None:
    # Two places for targets of the prompt, of which this one has one; then answers of 1 and of 3.
    mask = jnp.array([[[1.0, 0, 1, 0, 0], [1, 0, 1, 1, 1]]])
    policy = jnp.array([[[-1.0, 0, -2, 0, 0], [-1, 0, -4, -8, -16]]])
    reference = jnp.zeros_like(policy)
    ratios = LengthDesensitizedDPO(beta=1.0, length_alpha=0.25).log_ratios(policy, mask, reference)
    np.testing.assert_allclose(ratios, [[-3.0, -5 - 24 * 0.25]])


def test_no_weight_on_the_tail_and_whole_weight() -> None:
    whole = LengthDesensitizedDPO(beta=0.3, length_alpha=1.0)(POLICY, MASK, REFERENCE)[0]
    np.testing.assert_allclose(whole, DPO(beta=0.3)(POLICY, MASK, REFERENCE)[0], rtol=1e-6)
    shared = MASK[:, :1] * MASK[:, 1:]
    cut = LengthDesensitizedDPO(beta=0.3, length_alpha=0.0)(POLICY, MASK, REFERENCE)[0]
    expected = DPO(beta=0.3)(POLICY * shared, shared.repeat(2, 1), REFERENCE * shared)[0]
    np.testing.assert_allclose(cut, expected, rtol=1e-6)


# ------------------------------------------------------------------------------ TRL's numbers

GOLDEN = json.loads(Path(__file__).with_name("golden_trl.json").read_text("utf-8"))


def golden_loss(case: dict[str, Any]) -> TPOLoss:
    """Our loss for a case: one term of weight 1."""
    options = {k: v for k, v in case.items() if k not in ("trl", "loss", "metrics", "gradient")}
    return TPOLoss(**options | {"sft_weight" if "preference" in case else "dpo_weight": 0.0})


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["trl"]["loss_type"])
def test_trl_computes_the_same(case: dict[str, Any]) -> None:
    policy, mask, reference = (
        jnp.array(GOLDEN[name], jnp.float32) for name in ("policy", "mask", "reference")
    )
    loss = golden_loss(case)
    (value, seen), gradient = jax.value_and_grad(
        lambda policy: loss(policy, mask, reference), has_aux=True
    )(policy)
    np.testing.assert_allclose(value, case["loss"], rtol=2e-6)
    # What stands outside the mask is a constant to the model: TRL's gradient there is of no use.
    np.testing.assert_allclose(gradient, np.array(case["gradient"]) * mask, rtol=1e-5, atol=1e-7)
    for name, expected in case["metrics"].items():
        np.testing.assert_allclose(seen[name], expected, rtol=1e-5, err_msg=name)


def test_trl_was_asked_for_every_loss() -> None:
    assert {case["preference"] for case in GOLDEN["cases"] if "preference" in case} == set(
        PREFERENCES
    )
    lengths = np.sum(GOLDEN["mask"], axis=-1)
    assert {int(np.sign(chosen - rejected)) for chosen, rejected in lengths} == {-1, 0, 1}


# ----------------------------------------------------------------------------- parts of a batch

EVERY_LOSS: list[Loss] = [
    *preference_losses(beta=0.3, dpo_weight=0.7, sft_weight=0.5),
    TPOLoss(beta=0.3, label_smoothing=0.2, sft_reduction="token_mean"),
    TPOLoss(beta=0.3, sft_reduction="sum"),
    *(TPOLoss(dpo_weight=0.0, sft_reduction=name) for name in REDUCTIONS),
    *(EveryAnswerSFT(reduction=name) for name in REDUCTIONS),
]


# Few shapes: what is compiled for one example serves the next.
ROWS, TOKENS = 4, 4


@st.composite
def split_batches(draw: st.DrawFn) -> tuple[np.ndarray, list[slice], int]:
    """Lengths of both answers of each pair (0 and 0 for a row that fills up), parts, and a seed."""
    length = st.integers(1, TOKENS)
    row = st.tuples(length, length) | st.just((0, 0))
    lengths = draw(st.lists(row, min_size=ROWS, max_size=ROWS))
    bounds = [0, *sorted(draw(st.sets(st.integers(1, ROWS - 1)))), ROWS]
    parts = [slice(*ends) for ends in zip(bounds, bounds[1:], strict=False)]
    return np.array(lengths), parts, draw(st.integers(0, 2**32 - 1))


def value_and_grad(loss: Loss, batch: list, total: Any = None) -> Any:
    """((loss, metrics), gradient) of a batch or, with `total`, of a part of one."""
    policy, mask, reference = batch
    return jax.value_and_grad(
        lambda policy: loss(policy, mask, reference, total_weight=total), has_aux=True
    )(policy)


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=str)
@given(split_batches())
@settings(max_examples=4, deadline=None)
def test_the_parts_of_a_batch_add_up_to_the_whole(
    loss: Loss, drawn: tuple[np.ndarray, list[slice], int]
) -> None:
    lengths_B2, parts, seed = drawn
    rng = np.random.default_rng(seed)
    mask = (np.arange(TOKENS) < lengths_B2[..., None]).astype(np.float32)
    policy, reference = (np.float32(-4 * rng.random(mask.shape)) * mask for _ in range(2))
    batch = [jnp.array(x) for x in (policy, mask, reference)]

    (value, seen), gradient = value_and_grad(loss, batch)
    cut = [[x[part] for x in batch] for part in parts]
    weights = [loss.weight(mask) for _, mask, _ in cut]
    total = jax.tree.map(lambda *leaves: sum(leaves), *weights)
    jax.tree.map(np.testing.assert_allclose, total, loss.weight(batch[1]))
    done = [value_and_grad(loss, part, total) for part in cut]

    near = partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
    near(sum(part[0][0] for part in done), value)
    near(np.concatenate([part[1] for part in done]), gradient)
    for name in seen:
        added = sum(part[0][1][name] for part in done)
        near(added, seen[name], err_msg=name)


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=str)
def test_a_row_that_fills_up_changes_nothing(loss: Loss) -> None:
    batch = [POLICY, MASK, REFERENCE]
    filled = [jnp.concatenate([x, jnp.zeros_like(x[:1])]) for x in batch]
    (value, seen), gradient = value_and_grad(loss, filled)
    (expected, metrics), expected_gradient = value_and_grad(loss, batch)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:2], expected_gradient, rtol=1e-6)
    assert not np.any(gradient[2])
    for name in metrics:
        np.testing.assert_allclose(seen[name], metrics[name], rtol=1e-6, err_msg=name)


def test_a_batch_of_nothing_gives_nothing() -> None:
    nothing = jnp.zeros((2, 2, 3))
    for loss in EVERY_LOSS:
        value, gradient = value_and_grad(loss, [nothing] * 3)
        assert value[0] == 0 and not np.any(gradient), loss


# ------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("name", PREFERENCES)
def test_an_option_that_a_loss_has_no_use_for_is_an_error(name: str) -> None:
    needed = next(loss for loss in preference_losses() if loss.preference == name)
    for option in ("label_smoothing", "length_alpha"):
        given_one: dict[str, Any] = {option: 0.25}
        if hasattr(needed.pair_loss, option):
            assert getattr(replace(needed, **given_one).pair_loss, option) == 0.25
        else:
            with pytest.raises(InputError, match=f"{option} is 0.25, but preference '{name}'"):
                replace(needed, **given_one)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preference": "robust"}, "needs a label_smoothing"),
        ({"preference": "length_desensitized"}, "needs a length_alpha"),
        ({"preference": "sigmiod"}, "must be one of sigmoid, ipo"),
        ({"sft_reduction": "mean"}, "must be one of pair_mean, token_mean, sum"),
        ({"label_smoothing": 0.5}, "less than 0.5"),
        ({"label_smoothing": -0.1}, "0 or more"),
        ({"preference": "robust", "label_smoothing": 0.5}, "less than 0.5"),
        ({"preference": "length_desensitized", "length_alpha": 1.5}, "must be 0 to 1"),
        ({"beta": 0.0}, "beta is 0.0; must be a positive number"),
        ({"preference": "robust", "label_smoothing": 0.1, "beta": -1.0}, "beta is -1.0"),
        ({"preference": "length_desensitized", "length_alpha": 1.0, "beta": -1.0}, "beta is -1.0"),
        ({"beta": math.nan}, "must be a positive number"),
        ({"sft_weight": -1.0}, "sft_weight is -1.0"),
        ({"dpo_weight": math.inf}, "dpo_weight is inf"),
        ({"dpo_weight": 0.0, "sft_weight": 0.0}, "nothing would be learned"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        TPOLoss(**options)
    assert str(caught.value).startswith("loss: ") and "\n" not in str(caught.value)


def test_a_weight_of_0_takes_a_term_out_with_its_settings() -> None:
    assert not TPOLoss(dpo_weight=0.0, preference="robust").needs_reference
    assert TPOLoss(sft_weight=0.0, preference="ipo").needs_reference
