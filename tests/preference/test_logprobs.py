"""One row a pair against two plain rows, and what is learned in a row."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipelines.batches import RowShape, make_row, stack
from data_pipelines.prompts import Prompt, PromptPolicy, answer_tokens, make_prompt
from tests.closeness import assert_close
from tests.jaxpr_arrays import every_array
from tests.quick_compile import QUICK
from tests.qwen_vocabulary import qwen_tokenizer
from tests.random_params import random_params
from tests.tiny import random_batch, tiny_model
from tpo_jax.attention import PROMPT_BRANCH, row_layout
from tpo_jax.models.video_lmm import Params, VideoLMM, VideoLMMConfig, abstract_model
from tpo_jax.preference.logprobs import (
    row_logprobs,
    row_mask,
    supervised_states,
    supervised_targets,
)
from tpo_jax.preference.losses import TPOLoss

BETA, SFT_WEIGHT = 0.3, 0.5
FRAMES, PAIRS = 2, 2
MOST_TEXT, ANSWER = 12, 6


# ------------------------------------------------------------------- one row a pair, or two plain


@cache
def small() -> tuple[VideoLMMConfig, nnx.GraphDef]:
    """A model whose table is padded, and whose vocabulary is taken in several chunks."""
    config, _, _ = tiny_model()
    vision = replace(config.vision, layers=1, layers_used=1)
    language = replace(config.language, vocab_rows=93, padding_rows=3)
    config = replace(config, vision=vision, language=language)
    return config, abstract_model(config)[0]


@cache
def one_row(targets: int) -> Any:
    """(params, batch) -> (loss, log-probs [B, K, S+A]), gradients: the product, one shape a label
    mask."""
    _, graph = small()
    loss = TPOLoss(beta=BETA, sft_weight=SFT_WEIGHT)

    def loss_of(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        policy = row_logprobs(nnx.merge(graph, params), batch, columns=32)
        return loss(policy, row_mask(batch), batch["reference_logprobs"])[0], policy

    step = jax.value_and_grad(loss_of, has_aux=True)
    return jax.jit(step, compiler_options=QUICK)


@cache
def two_rows() -> Any:
    """The same of plain rows [prompt | answer], the chosen ones first, then the rejected."""
    _, graph = small()

    def logprobs_of(params: Params, rows: dict[str, jax.Array]) -> jax.Array:
        """Of every token of every row, given those before it: full logits and a log-softmax."""
        model: VideoLMM = nnx.merge(graph, params)
        length = rows["tokens"].shape[1]
        positions = jnp.broadcast_to(jnp.arange(length), rows["tokens"].shape)
        causal = row_layout(jnp.full_like(positions, PROMPT_BRANCH))
        visual = model.encode_videos(rows["frames"])
        hidden, _ = model(rows["tokens"], visual, rows["visual_index"], positions, causal)
        logits = jnp.matmul(hidden[:, :-1], model.language.head.kernel[:, :93])
        logprobs = jax.nn.log_softmax(logits)
        said = jnp.take_along_axis(logprobs, rows["tokens"][:, 1:, None], axis=-1)[..., 0]
        return said * rows["learned"][:, 1:]

    def loss_of(params: Params, rows: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        logprobs = logprobs_of(params, rows)
        gained = logprobs.sum(axis=1) - rows["reference_sums"]
        margin = gained[:PAIRS] - gained[PAIRS:]
        dpo = -jnp.log(1 / (1 + jnp.exp(-BETA * margin)))
        chosen_nll = -logprobs[:PAIRS].sum(axis=1) / rows["learned"][:PAIRS, 1:].sum(axis=1)
        return jnp.mean(dpo) + SFT_WEIGHT * jnp.mean(chosen_nll), logprobs

    step = jax.value_and_grad(loss_of, has_aux=True)
    return jax.jit(step, compiler_options=QUICK)


@cache
def weights(seed: int) -> Params:
    return random_params(small()[0], seed)


def plain_rows(prompts: list[Prompt], answers: list[list[list[int]]]) -> dict[str, np.ndarray]:
    """[prompt | answer] from place 0 on; padding behind, made of tokens like all others."""
    length = visual_tokens() + MOST_TEXT + ANSWER + 1
    rows = []
    for branch in (0, 1):
        for prompt, of_pair in zip(prompts, answers, strict=True):
            tokens = np.concatenate([prompt.tokens, of_pair[branch]])
            learned = np.concatenate([prompt.supervised, np.ones(len(of_pair[branch]), np.bool_)])
            behind = length - len(tokens)
            visual = np.pad(
                prompt.visual_index, (0, length - len(prompt.tokens)), constant_values=-1
            )
            rows.append(
                {
                    "tokens": np.pad(tokens, (0, behind), constant_values=5).astype(np.int32),
                    "visual_index": visual,
                    "learned": np.pad(learned, (0, behind)).astype(np.float32),
                }
            )
    return stack(rows)


def visual_tokens() -> int:
    return small()[0].tokens_per_video(FRAMES)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Prompt], list[list[list[int]]], bool]:
    """Prompts and answers of `PAIRS` pairs, and whether tokens of the prompts are learned."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    chatml = draw(st.booleans())
    prompts, answers = [], []
    for number in range(PAIRS):
        # The text fills the bucket, or leaves any number of places of it to padding.
        before = draw(st.integers(1, 5))
        after = draw(st.integers(1, MOST_TEXT - before))
        prompts.append(text_around_video(rng, before, after, targets=6 if chatml else 0))
        lengths = draw(st.tuples(st.integers(1, ANSWER), st.integers(1, ANSWER)))
        chosen, rejected = (rng.integers(0, 93, length).tolist() for length in lengths)
        # Not all pairs have equal answers: what cancels in their margin leaves rounding, which is
        # then compared with the little that is left of the gradient.
        kind = draw(
            st.sampled_from(["differ", "prefix", "same"] if number else ["differ", "prefix"])
        )
        if kind == "same":
            rejected = chosen
        if kind == "prefix":
            rejected = chosen[: max(1, len(chosen) - 2)] if len(chosen) > 1 else [*chosen, 5]
        both = [chosen, rejected]
        answers.append(both[::-1] if draw(st.booleans()) else both)
    return prompts, answers, chatml


def text_around_video(rng: np.random.Generator, before: int, after: int, targets: int) -> Prompt:
    index = np.full(before + visual_tokens() + after, -1, np.int32)
    index[before : before + visual_tokens()] = np.arange(visual_tokens())
    tokens = np.where(index < 0, rng.integers(0, 93, len(index)), 0).astype(np.int32)
    # Any of the text but the first token, also one that the video's last token predicts.
    text = np.flatnonzero(index < 0)[1:]
    learned = rng.choice(text, min(targets, len(text)), replace=False)
    return Prompt(
        tokens=tokens, visual_index=index, supervised=np.isin(np.arange(len(index)), learned)
    )


def edge_case(chatml: bool) -> tuple[list[Prompt], list[list[list[int]]], bool]:
    """A prompt without padding with the longest and the shortest answer, and one with the most."""
    rng = np.random.default_rng(9)
    prompts = [
        text_around_video(rng, before, after, targets=6 if chatml else 0)
        for before, after in ((5, MOST_TEXT - 5), (1, 1))
    ]
    return prompts, [[[1, 2, 3, 4, 5, 6], [92]], [[8], [8, 8, 3]]], chatml


@settings(max_examples=12, deadline=None, derandomize=True)
@example(edge_case(chatml=False))
@example(edge_case(chatml=True))
@given(pairs())
def test_one_row_equals_two(case: tuple[list[Prompt], list[list[list[int]]], bool]) -> None:
    prompts, answers, chatml = case
    shape = RowShape(
        prompt_tokens=visual_tokens() + MOST_TEXT,
        answer_tokens=ANSWER,
        prompt_targets=6 if chatml else 0,
    )
    size = small()[0].vision.image_size
    frames = np.random.default_rng(0).integers(0, 256, (PAIRS, FRAMES, size, size, 3), np.uint8)
    rows = zip(prompts, answers, strict=True)
    batch = stack([make_row(prompt, of_pair, shape) for prompt, of_pair in rows])
    mask = np.asarray(row_mask(batch))
    batch |= {"frames": frames, "reference_logprobs": np.zeros(mask.shape, np.float32)}
    plain = plain_rows(prompts, answers)
    plain |= {"frames": np.concatenate([frames, frames])}
    plain |= {"reference_sums": np.zeros(2 * PAIRS, np.float32)}

    # The reference is another model; its log-probs come out of the same two functions.
    (_, reference), _ = one_row(shape.prompt_targets)(weights(1), batch)
    (_, plain_reference), _ = two_rows()(weights(1), plain)
    batch["reference_logprobs"] = np.asarray(reference)
    plain["reference_sums"] = np.asarray(plain_reference).sum(axis=1)

    (loss, policy), grads = one_row(shape.prompt_targets)(weights(0), batch)
    (plain_loss, plain_policy), plain_grads = two_rows()(weights(0), plain)

    assert policy.dtype == jnp.float32 and policy.shape == mask.shape
    assert not np.any(np.asarray(policy)[mask == 0])
    for name, ours, theirs in (
        ("reference", reference, plain_reference),
        ("policy", policy, plain_policy),
    ):
        for row in range(2 * PAIRS):
            branch, pair = divmod(row, PAIRS)
            # In the order of the row: the prompt's targets, then the answer's.
            expected = np.asarray(theirs)[row][plain["learned"][row, 1:] > 0]
            found = np.asarray(ours)[pair, branch][mask[pair, branch] > 0]
            assert_close(found, expected, f"{name} of pair {pair}, answer {branch}")
    assert_close(loss, plain_loss, "loss")
    assert_same_gradients(grads, plain_grads)


def assert_same_gradients(found: Params, expected: Params) -> None:
    """Every gradient, to its own largest entry."""
    pairs_of_leaves = zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    )
    for keys, ours, theirs in ((keys, a, b) for (keys, a), b in pairs_of_leaves):
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        if name == "vision/layers/k/bias":
            # Softmax does not see it where there is no rope: its gradient is rounding.
            beside = float(np.max(np.abs(expected["vision"]["layers"]["k"]["kernel"])))
            for rounding in (ours, theirs):
                assert_close(rounding, np.zeros_like(theirs), name, beside)
            continue
        # The last norm of the tower is stored and never run.
        assert np.any(theirs) == ("post_norm" not in name), name
        assert_close(ours, theirs, name)


def test_equal_models_have_no_margin_and_equal_prompt_terms() -> None:
    config, graph = small()
    batch = random_batch(config, 0, rows=2, prompt_targets=4)
    batch["answers"] = np.minimum(batch["answers"], 92)
    policy = jax.jit(lambda p, b: row_logprobs(nnx.merge(graph, p), b), compiler_options=QUICK)
    found = np.asarray(policy(weights(0), batch))
    mask = np.asarray(row_mask(batch))
    assert mask[:, :, :4].tolist() == [[[1, 1, 1, 0]] * 2, [[1, 1, 0, 0]] * 2]
    np.testing.assert_array_equal(found[:, 0, :4], found[:, 1, :4])
    assert np.all(found[mask > 0] < 0) and not np.any(found[mask == 0])


# ------------------------------------------------------------------ what the authors' labels learn


def test_the_places_that_are_learned_are_those_of_the_authors_dpo_script() -> None:
    """Ids and labels by the rule of the authors' trainer, shifted by one; the video is 2 tokens."""
    tokenizer = qwen_tokenizer()
    policy = PromptPolicy(after_video="two_newlines", labels="chatml")
    prompt = make_prompt(tokenizer, "Hello world", visual_tokens=2, policy=policy)
    answers = [answer_tokens(tokenizer, text, labels="chatml") for text in ("Hello", "Hello world")]
    # <|im_start|> system \n You are a helpful assistant . <|im_end|> \n <|im_start|> user \n
    system = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198]
    user = [151644, 872, 198, -200, -200, 198, 198, 9707, 1879, 151645, 198]
    assistant = [151644, 77091, 198]
    # 1 where the script has a label; the first of all is lost, since nothing predicts it.
    labels = [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1] + [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1] + [1, 0, 0]
    said = [[9707, 151645, 198], [9707, 1879, 151645, 198]]
    expected = []
    for answer in said:
        ids = system + user + assistant + answer
        learned = labels + [1] * len(answer)
        expected.append([(n - 1, ids[n - 1], ids[n]) for n in range(1, len(ids)) if learned[n]])
    assert len(expected[0]) == 6 + 3 and len(expected[1]) == 6 + 4
    # (place of the token that predicts, that token, the target), written out for the first answer.
    assert expected[0] == [
        (8, 13, 151645),
        (9, 151645, 198),
        (10, 198, 151644),
        (19, 1879, 151645),
        (20, 151645, 198),
        (21, 198, 151644),
        (24, 198, 9707),
        (25, 9707, 151645),
        (26, 151645, 198),
    ]

    shape = RowShape(prompt_tokens=32, answer_tokens=6, prompt_targets=6)
    batch = stack([make_row(prompt, answers, shape)])
    # In the place of hidden states: where each token stands, and which it is.
    told = jnp.stack([jnp.asarray(batch[name]) for name in ("positions", "tokens")], axis=-1)
    places_N2 = supervised_states(told, batch)[0]
    targets_N = supervised_targets(batch)[0]
    found = [
        (int(place), int(token), int(target))
        for (place, token), target in zip(places_N2, targets_N, strict=True)
    ]
    mask_KN = np.asarray(row_mask(batch))[0]
    for number, mask in enumerate(mask_KN):
        of_answer = found[6 + number * 6 : 6 + (number + 1) * 6]
        both = zip(found[:6] + of_answer, mask, strict=True)
        assert [one for one, learned in both if learned] == expected[number]


# -------------------------------------------------------------------------- what is never there


@pytest.mark.parametrize("tied", [False, True])
def test_scores_of_all_tokens_over_all_of_the_vocabulary_never_exist(tied: bool) -> None:
    config, _ = small()
    language = replace(config.language, vocab_rows=4093, tied_embeddings=tied)
    config = replace(config, language=language)
    graph, shapes = abstract_model(config)
    batch = random_batch(config, 0, rows=2, prompt_targets=4)
    tokens = supervised_targets(batch).size
    everything = tokens * config.language.table_rows
    # So that no parameter is as large.
    assert tokens > config.language.width

    def chunked(params: Params) -> jax.Array:
        return row_logprobs(nnx.merge(graph, params), batch, columns=512).sum()

    def at_once(params: Params) -> jax.Array:
        return row_logprobs(nnx.merge(graph, params), batch, columns=4096).sum()

    sizes = {}
    for name, one in (("chunked", chunked), ("at once", at_once)):
        jaxpr = jax.make_jaxpr(jax.value_and_grad(one))(shapes)
        sizes[name] = max(aval.size for aval in every_array(jaxpr.jaxpr))
    assert sizes["at once"] >= everything  # it would be seen
    assert sizes["chunked"] < everything
    # The largest is the table's gradient.
    assert sizes["chunked"] == config.language.table_rows * config.language.width
