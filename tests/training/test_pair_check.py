"""A pair alone: its loss and gradient, and the first thing that is not finite."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.quick_compile import QUICK
from tests.tiny import random_batch, tiny_model
from tests.training.test_step import BrokenGradient
from tpo_jax.models.video_lmm import Params
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.optimizer import split_frozen
from tpo_jax.training.pair_check import find_fault, make_pair_check
from tpo_jax.training.step import init_state, make_train_step


@cache
def compiled(loss: Any) -> Callable[..., Any]:
    _, graph, _ = tiny_model()
    return jax.jit(make_pair_check(graph, loss, jnp.dtype("float32")), compiler_options=QUICK)


def check(loss: Any, params: Params, batch: dict) -> Any:
    return jax.device_get(compiled(loss)(*split_frozen(params, ("vision",)), batch))


def batch_of(copies: int) -> dict[str, np.ndarray]:
    config, _, _ = tiny_model()
    return {
        name: np.repeat(array, copies, axis=0)
        for name, array in random_batch(config, 3, rows=1).items()
    }


def test_copies_of_a_pair_are_the_pair() -> None:
    _, graph, params = tiny_model()
    step = make_train_step(graph, TPOLoss(), optax.sgd(0.1), jnp.dtype("float32"))
    state = init_state(*split_frozen(params, ("vision",)), optax.sgd(0.1))
    _, expected = jax.jit(step, compiler_options=QUICK)(state, batch_of(1))
    checked = check(TPOLoss(), params, batch_of(2))
    assert find_fault(checked, batch_of(1)["reference_logprobs"]) is None
    for name in ("loss", "grad_norm", "reward_margin", "logprob_rejected"):
        assert checked[0][name] == pytest.approx(float(expected[name]), rel=1e-5), name


def test_the_first_layer_that_is_not_finite_is_named() -> None:
    _, _, params = tiny_model()
    params["language"]["layers"]["down"]["kernel"][1, 2, 3] = np.inf
    assert find_fault(check(TPOLoss(), params, batch_of(2)), None) == "decoder layer 1"
    _, _, params = tiny_model()
    params["projector"]["first"]["kernel"][0, 0] = np.nan
    assert find_fault(check(TPOLoss(), params, batch_of(2)), None) == "projector"


def test_what_is_not_finite_behind_the_model_is_named() -> None:
    _, _, params = tiny_model()
    batch = batch_of(2)
    broken = check(BrokenGradient(), params, batch)
    fault = find_fault(broken, batch["reference_logprobs"])
    assert np.isfinite(broken[0]["loss"])
    assert fault is not None and fault.startswith("the gradient of ")
    batch["reference_logprobs"][:, 1, 0] = np.nan
    checked = check(TPOLoss(), params, batch)
    assert find_fault(checked, batch["reference_logprobs"]) == "the reference's log-probs"
    found = find_fault(checked, None)
    assert found is not None
    assert set(found.split(", ")) == {
        "dpo_loss", "reward_rejected", "reward_margin", "loss", "grad_norm"
    }  # fmt: skip
