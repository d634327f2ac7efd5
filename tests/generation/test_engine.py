"""Generation: shared frames, the shared prefix, slots and the batch change nothing."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.batches import RowShape, make_row, prompt_row, stack
from data_pipelines.prompts import Prompt
from tests.quick_compile import QUICK
from tests.tiny import VOCABULARY, random_prompt, tiny_model
from tpo_jax.attention import row_layout
from tpo_jax.generation.engine import Ask, Engine
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.generation.slots import Prefix
from tpo_jax.generation.unshared import generate_each
from tpo_jax.models.video_lmm import Params, VideoLMM
from tpo_jax.preference.logprobs import row_logprobs

END = 2
NEW = 6
BEFORE = 2  # tokens before the video


def engine(rows: int = 3, **sampling: float) -> Engine:
    config, graph, params = tiny_model(seed=3)
    # Larger weights than at the start of training: answers that depend on what is seen.
    params = {**params, "newline": params["newline"] * 3}
    settings = SamplingConfig(**{"max_new_tokens": NEW, **sampling})  # type: ignore[arg-type]
    return Engine(config, graph, params, end_token=END, sampling=settings, rows=rows)


def frames(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 56, 56, 3), dtype=np.uint8)


def prompt_on(made: Engine, positions: Sequence[int], stored: int, seed: int, after: int) -> Prompt:
    """Random text around the frames; the text before them is the same for every seed."""
    index = made.visual_index(np.array(positions), stored)
    prompt = random_prompt(np.random.default_rng(seed), len(index), BEFORE, after)
    prompt.visual_index[prompt.visual_index >= 0] = index
    prompt.tokens[:BEFORE] = [7, 8]
    return prompt


def asks_of(prompts: Sequence[Prompt], *, temperature: float = 0.0) -> list[Ask]:
    start = BEFORE + int(np.sum(prompts[0].visual_index >= 0))
    rest = [Prompt(tokens=p.tokens[start:], visual_index=p.visual_index[start:]) for p in prompts]
    rows = [prompt_row(prompt, 32) for prompt in rest]
    return [Ask(row=row, seed=seed, temperature=temperature) for seed, row in enumerate(rows)]


def prefix_of(made: Engine, pictures: np.ndarray, prompt: Prompt, room: int = 64) -> Prefix:
    start = BEFORE + int(np.sum(prompt.visual_index >= 0))
    shared = Prompt(tokens=prompt.tokens[:start], visual_index=prompt.visual_index[:start])
    return made.prefill(made.encode(pictures), prompt_row(shared, room))


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def encode_exactly(graph: nnx.GraphDef, params: Params, pictures: Any) -> jax.Array:
    model: VideoLMM = nnx.merge(graph, params)
    return model.encode_videos(pictures[None])


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def likeliest(
    graph: nnx.GraphDef, params: Params, tokens: Any, visual: Any, index: Any
) -> jax.Array:
    """The token after a row."""
    model: VideoLMM = nnx.merge(graph, params)
    layout = row_layout(jnp.zeros(tokens.shape, jnp.int32))
    positions = jnp.arange(tokens.shape[1])[None]
    hidden, _ = model(tokens, visual, index, positions, layout)
    return jnp.argmax(model.logits(hidden[:, -1]))


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def training_logprobs(graph: nnx.GraphDef, params: Params, batch: Any) -> jax.Array:
    return row_logprobs(nnx.merge(graph, params), batch)


def slow_answer(
    made: Engine, pictures: np.ndarray, prompt: Prompt, positions: Sequence[int]
) -> list[int]:
    """Encode only the frames shown, no padding, no cache, one token at a time."""
    model = made._graph, made.params
    visual = encode_exactly(*model, pictures[np.array(positions)])
    shown = prompt.visual_index >= 0
    index = np.where(shown, np.cumsum(shown) - 1, -1)[None]
    tokens, said = prompt.tokens[None], []
    for _ in range(NEW):
        said_so_far = tokens.shape[1] - index.shape[1]
        shown_at = np.pad(index, ((0, 0), (0, said_so_far)), constant_values=-1)
        token = int(likeliest(*model, tokens, visual, shown_at))
        said.append(token)
        if token == END:
            break
        tokens = np.append(tokens, [[token]], axis=1)
    return said


@pytest.mark.parametrize(
    "positions",
    [
        [2, 2, 4],
        pytest.param([0, 1, 2, 3, 4], marks=pytest.mark.slow),
        pytest.param([1, 3], marks=pytest.mark.slow),
    ],
)
def test_shared_prefix_slots_and_cache_equal_the_slow_way(positions: list[int]) -> None:
    """More prompts than slots, of mixed lengths, so that slots are taken over."""
    made = engine(rows=2)
    pictures = frames(0, 5)
    # Lengths overlap, or every token would compile all that is done slowly.
    prompts = [prompt_on(made, positions, 5, seed, 3 + seed % 3) for seed in range(5)]
    told = made.answer(prefix_of(made, pictures, prompts[0], 128), asks_of(prompts), chunk=2)
    expected = [slow_answer(made, pictures, prompt, positions) for prompt in prompts]
    assert [said.tokens.tolist() for said in told] == expected
    assert len({tuple(answer) for answer in expected}) > 1  # or the test shows nothing


def test_the_same_as_prompts_that_share_nothing() -> None:
    """Tokens and log-probs; the padding of the prefix and the chunks change nothing."""
    made = engine(rows=2)
    pictures = frames(0, 4)
    prompts = [prompt_on(made, [0, 2], 4, seed, 3 + 2 * seed) for seed in range(5)]
    rows = stack([prompt_row(prompt, 96) for prompt in prompts])
    answers, logprobs = generate_each(
        made._graph,
        made.config,
        END,
        made.sampling,
        made.params,
        made.encode(pictures),
        rows,
        np.arange(5, dtype=np.uint32),
    )
    for room, chunk in ((64, 1), (96, 16)):
        told = made.answer(
            prefix_of(made, pictures, prompts[0], room), asks_of(prompts), chunk=chunk
        )
        for number, said in enumerate(told):
            count = len(said.tokens)
            assert said.tokens.tolist() == np.asarray(answers)[number, :count].tolist()
            assert np.all(np.asarray(answers)[number, count:] == END)
            np.testing.assert_allclose(said.logprobs, logprobs[number, :count], atol=2e-5)


def test_log_probs_are_those_of_training() -> None:
    """Drawn at another temperature, with everything else cut too: the model's own all the same."""
    made = engine(temperature=1.5, top_k=20, top_p=0.9, repetition_penalty=1.3)
    pictures = frames(4, 3)
    prompts = [prompt_on(made, [0, 1, 2], 3, seed, 5 + seed) for seed in range(4)]
    told = made.answer(prefix_of(made, pictures, prompts[0]), asks_of(prompts, temperature=1.5))
    shape = RowShape(prompt_tokens=96, answer_tokens=8, prompt_targets=0)
    for prompt, said in zip(prompts, told, strict=True):
        shown = prompt.visual_index >= 0
        whole = Prompt(tokens=prompt.tokens, visual_index=np.where(shown, np.cumsum(shown) - 1, -1))
        answers = [said.tokens.tolist()] * 2
        batch = stack([make_row(whole, answers, shape)]) | {"frames": pictures[None]}
        expected = np.asarray(training_logprobs(made._graph, made.params, batch))[
            0, 0, : len(said.tokens)
        ]
        np.testing.assert_allclose(said.logprobs, expected, atol=2e-5)


def test_an_answer_does_not_depend_on_its_batch() -> None:
    made = engine(rows=2, temperature=1.0)
    prompts = [prompt_on(made, [0, 1], 2, seed, 4) for seed in range(5)]
    prefix = prefix_of(made, frames(1, 2), prompts[0])
    asks = asks_of(prompts, temperature=1.0)
    together = made.answer(prefix, asks)
    for ask, other in zip(asks, together, strict=True):
        (alone,) = made.answer(prefix, [ask])
        np.testing.assert_array_equal(alone.tokens, other.tokens)
        np.testing.assert_array_equal(alone.logprobs, other.logprobs)
        assert other.tokens.max() < VOCABULARY
    backwards = made.answer(prefix, asks[::-1])
    assert [one.tokens.tolist() for one in backwards[::-1]] == [a.tokens.tolist() for a in together]


def test_greedy_and_drawn_answers_side_by_side() -> None:
    made = engine(rows=4)
    prompt = prompt_on(made, [0, 1], 2, 0, 4)
    prefix = prefix_of(made, frames(1, 2), prompt)
    (row,) = asks_of([prompt])
    asks = [Ask(row=row.row, seed=seed, temperature=t) for t in (0.0, 3.0) for seed in range(6)]
    told = [tuple(said.tokens.tolist()) for said in made.answer(prefix, asks)]
    assert len(set(told[:6])) == 1 and len(set(told[6:])) > 1


def test_an_answer_ends_at_the_end_token_and_another_takes_its_place() -> None:
    made = engine(rows=32, temperature=1.0)
    prompt = prompt_on(made, [0], 1, 0, 4)
    prefix = prefix_of(made, frames(2, 1), prompt)
    (row,) = asks_of([prompt])
    asks = [Ask(row=row.row, seed=seed, temperature=1.0) for seed in range(64)]
    heard: list[tuple[int, int]] = []
    listener = lambda number, tokens: heard.append((number, len(tokens)))  # noqa: E731
    answered = made.answer(prefix, asks, chunk=1, listener=listener)
    told = [said.tokens.tolist() for said in answered]
    assert any(answer[-1] == END for answer in told) and any(END not in answer for answer in told)
    for answer in told:
        assert END not in answer[:-1] and (answer[-1] == END or len(answer) == NEW)
    # The 33rd does not wait until all of the 32 that began together have ended.
    joined = next(at for at, (number, _) in enumerate(heard) if number == 32)
    assert any(number < 32 and length == NEW for number, length in heard[joined:])


def test_a_listener_is_told_of_growing_answers() -> None:
    made = engine(rows=2)
    prompts = [prompt_on(made, [0, 1], 2, seed, 4) for seed in range(3)]
    heard: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}
    listener = lambda number, tokens: heard[number].append(tokens.tolist())  # noqa: E731
    prefix = prefix_of(made, frames(1, 2), prompts[0])
    told = made.answer(prefix, asks_of(prompts), chunk=1, listener=listener)
    for number, said in enumerate(told):
        assert heard[number][-1] == said.tokens.tolist()
        for earlier, later in zip(heard[number], heard[number][1:], strict=False):
            assert later[: len(earlier)] == earlier


@pytest.mark.parametrize(
    "count", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (31, 32)), 33]
)
def test_encoding_in_buckets_equals_encoding_exactly(count: int) -> None:
    made = engine()
    pictures = frames(3, count)
    exact = np.asarray(encode_exactly(made._graph, made.params, pictures)[0])
    index = made.visual_index(np.arange(count), count)
    np.testing.assert_allclose(np.asarray(made.encode(pictures))[index], exact, atol=1e-5)
