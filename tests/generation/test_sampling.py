"""How tokens are chosen, beside transformers' own processors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tpo_jax.errors import InputError
from tpo_jax.generation.sampling import SamplingConfig, choose, keep_likeliest

VOCABULARY = 40


def draw_logits(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, VOCABULARY)).astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    top_k=st.integers(0, VOCABULARY + 5),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
    temperature=st.floats(0.1, 5.0),
)
@settings(max_examples=50, deadline=None)
def test_what_is_left_out_is_what_transformers_leaves_out(
    seed: int, top_k: int, top_p: float, temperature: float
) -> None:
    logits = draw_logits(seed, 3)
    scores = TemperatureLogitsWarper(temperature)(None, torch.tensor(logits))
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    found = np.asarray(keep_likeliest(jnp.asarray(logits / temperature), top_k=top_k, top_p=top_p))
    expected = scores.numpy()
    differ = np.isinf(found) != np.isinf(expected)
    if differ.any():  # only where the sum is at the edge to the last digit
        left = np.where(np.isinf(expected), 0, np.exp(expected.astype(np.float64)))
        assert differ.sum() == 1 and top_p < 1, left
    both = ~np.isinf(found) & ~np.isinf(expected)
    np.testing.assert_allclose(found[both], expected[both], rtol=1e-5)
    assert both.any(axis=1).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    penalty=st.floats(0.2, 5.0),
    said=st.lists(st.integers(0, VOCABULARY - 1), max_size=20),
)
@settings(max_examples=30, deadline=None)
def test_greedy_with_a_penalty_is_that_of_transformers(
    seed: int, penalty: float, said: list[int]
) -> None:
    logits = draw_logits(seed, 1)
    scores = torch.tensor(logits)
    if said:
        scores = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([said]), scores)
    seen = np.zeros((1, VOCABULARY), bool)
    seen[0, said] = True
    config = SamplingConfig(repetition_penalty=penalty)
    key, zero = jax.random.key(0)[None], jnp.zeros(1)
    chosen = choose(jnp.asarray(logits), jnp.asarray(seen), key, zero.astype(int), zero, config)
    token = int(chosen[0])
    assert scores[0, token] == scores.max()


def test_draws_have_the_probabilities_that_are_left() -> None:
    """Of 20,000 draws; 5 standard deviations."""
    rows, config = 20_000, SamplingConfig(top_k=5, top_p=0.8)
    logits = draw_logits(1, 1)
    kept = np.asarray(keep_likeliest(jnp.asarray(logits / 2.0), top_k=5, top_p=0.8))[0]
    expected = np.exp(kept) / np.exp(kept).sum()
    assert 1 < np.sum(expected > 0) < 5
    keys = jax.vmap(jax.random.key)(jnp.arange(rows, dtype=jnp.uint32))
    many = jnp.broadcast_to(jnp.asarray(logits), (rows, VOCABULARY))
    nothing, temperature = jnp.zeros_like(many, bool), jnp.full(rows, 2.0)
    drawn = choose(many, nothing, keys, jnp.zeros(rows, int), temperature, config)
    share = np.bincount(np.asarray(drawn), minlength=VOCABULARY) / rows
    bound = 5 * np.sqrt(expected * (1 - expected) / rows)
    assert np.all(np.abs(share - expected) <= bound)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("repetition_penalty", 0.0),
    ],
)
def test_values_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"sampling.{name} is .*; give "):
        SamplingConfig(**{name: value})  # type: ignore[arg-type]
