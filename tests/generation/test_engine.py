"""Generation: the cache, the shared frames and the batch change nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.batches import prompt_row, stack
from data_pipelines.prompts import Prompt
from tests.tiny import VOCABULARY, random_prompt, tiny_model
from tpo_jax.attention import row_layout
from tpo_jax.generation.engine import Engine
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.models.video_lmm import VideoLMM

END = 2
NEW = 6


def engine(temperature: float = 0.0) -> tuple[Engine, VideoLMM]:
    config, graph, params = tiny_model(seed=3)
    # Larger weights than at the start of training: answers that depend on what is seen.
    params = {**params, "newline": params["newline"] * 3}
    sampling = SamplingConfig(max_new_tokens=NEW, temperature=temperature)
    made = Engine(config, graph, params, end_token=END, sampling=sampling)
    model: VideoLMM = nnx.merge(graph, params)
    return made, model


def frames(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 56, 56, 3), dtype=np.uint8)


def prompt_on(made: Engine, positions: np.ndarray, stored: int, seed: int, after: int) -> Prompt:
    index = made.visual_index(positions, stored)
    prompt = random_prompt(np.random.default_rng(seed), len(index), 2, after)
    prompt.visual_index[prompt.visual_index >= 0] = index
    return prompt


def slow_answer(
    model: VideoLMM, pictures: np.ndarray, prompt: Prompt, positions: np.ndarray
) -> list[int]:
    """Encode only the frames shown, no padding, no cache, one token at a time."""
    visual = model.encode_videos(pictures[positions][None])
    shown = prompt.visual_index >= 0
    index = np.where(shown, np.cumsum(shown) - 1, -1)[None]
    tokens, said = prompt.tokens[None], []
    for _ in range(NEW):
        length = tokens.shape[1]
        hidden, _ = model(
            jnp.asarray(tokens),
            visual,
            jnp.pad(index, ((0, 0), (0, length - index.shape[1])), constant_values=-1),
            jnp.arange(length)[None],
            row_layout(jnp.zeros((1, length), jnp.int32)),
        )
        token = int(jnp.argmax(model.logits(hidden[:, -1])))
        said.append(token)
        if token == END:
            break
        tokens = np.append(tokens, [[token]], axis=1)
    return said + [END] * (NEW - len(said))


def test_shared_frames_cache_and_batch_equal_the_slow_way() -> None:
    made, model = engine()
    pictures = frames(0, 5)
    shown = [np.array([0, 1, 2, 3, 4]), np.array([1, 3]), np.array([2, 2, 4])]
    prompts = [prompt_on(made, p, 5, seed, 3 + 4 * seed) for seed, p in enumerate(shown)]
    rows = stack([prompt_row(prompt, 64) for prompt in prompts])
    answers, _ = made.generate(made.encode(pictures), rows, np.zeros(3, np.uint32))
    expected = [
        slow_answer(model, pictures, prompt, positions)
        for prompt, positions in zip(prompts, shown, strict=True)
    ]
    assert answers.tolist() == expected
    assert len({tuple(answer) for answer in expected}) > 1  # or the test shows nothing


def test_a_sampled_answer_does_not_depend_on_its_batch() -> None:
    made, _ = engine(temperature=1.0)
    visual = made.encode(frames(1, 2))
    prompts = [prompt_on(made, np.array([0, 1]), 2, seed, 4) for seed in range(3)]
    seeds = np.array([5, 6, 7], np.uint32)
    rows = [prompt_row(prompt, 32) for prompt in prompts]
    together, _ = made.generate(visual, stack(rows), seeds)
    for number, row in enumerate(rows):
        alone, _ = made.generate(visual, stack([row]), seeds[number : number + 1])
        np.testing.assert_array_equal(alone[0], together[number])
    assert together.max() < VOCABULARY


def test_after_the_end_there_is_only_the_end() -> None:
    made, _ = engine(temperature=1.0)
    visual = made.encode(frames(2, 1))
    prompt = prompt_on(made, np.array([0]), 1, 0, 4)
    rows = stack([prompt_row(prompt, 32)] * 256)
    answers, _ = made.generate(visual, rows, np.arange(256, dtype=np.uint32))
    for answer in answers.tolist():
        if END in answer:
            assert set(answer[answer.index(END) :]) == {END}


@pytest.mark.parametrize("count", [1, 31, 32, 33])
def test_encoding_in_buckets_equals_encoding_exactly(count: int) -> None:
    made, model = engine()
    pictures = frames(3, count)
    exact = np.asarray(model.encode_videos(jnp.asarray(pictures[None]))[0])
    index = made.visual_index(np.arange(count), count)
    np.testing.assert_allclose(np.asarray(made.encode(pictures))[index], exact, atol=1e-5)
