"""The prompt: the template to the letter, and the place of the video."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from data_pipelines.errors import InputError
from data_pipelines.prompts import (
    Prompt,
    PromptPolicy,
    answer_tokens,
    end_token,
    interleaved_prompt,
    make_prompt,
    question_tokens,
    time_instruction,
    video_prompt,
)
from tests.qwen_vocabulary import ADDED, qwen_tokenizer

BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
QUESTION = "What comes first in the video?"
PLAIN = PromptPolicy()
TIMED = PromptPolicy(time_instruction=True)


def said(tokenizer: Tokenizer, tokens: np.ndarray) -> str:
    return tokenizer.decode(tokens.tolist(), skip_special_tokens=False)


@pytest.mark.parametrize("visual", [1, 7])
def test_the_template_is_chatml_with_the_video_before_the_question(
    tokenizer: Tokenizer, visual: int
) -> None:
    prompt = make_prompt(tokenizer, QUESTION, visual_tokens=visual, policy=PLAIN)
    assert prompt.tokens.dtype == prompt.visual_index.dtype == np.int32
    assert len(prompt.tokens) == len(prompt.visual_index)
    places = np.flatnonzero(prompt.visual_index >= 0)
    start = int(places[0])
    assert places.tolist() == list(range(start, start + visual))
    assert prompt.visual_index[places].tolist() == list(range(visual))
    assert prompt.visual_index.tolist().count(-1) == len(prompt.tokens) - visual
    assert said(tokenizer, prompt.tokens[:start]) == BEFORE
    assert said(tokenizer, prompt.tokens[start + visual :]) == f"\n{QUESTION}{AFTER}"


def test_the_tokens_around_the_video_do_not_depend_on_it(tokenizer: Tokenizer) -> None:
    one, many = (
        make_prompt(tokenizer, QUESTION, visual_tokens=count, policy=PLAIN) for count in (1, 50)
    )
    texts = [prompt.tokens[prompt.visual_index < 0].tolist() for prompt in (one, many)]
    assert texts[0] == texts[1]
    start = tokenizer.token_to_id("<|im_start|>")
    assert texts[0].count(start) == 3 and texts[0].count(end_token(tokenizer)) == 2


def test_the_prompt_falls_in_two_at_the_end_of_the_video(tokenizer: Tokenizer) -> None:
    whole = make_prompt(tokenizer, QUESTION, visual_tokens=5, policy=PLAIN)
    before = video_prompt(tokenizer, visual_tokens=5)
    after = question_tokens(tokenizer, QUESTION)
    assert whole.tokens.tolist() == [*before.tokens.tolist(), *after]
    assert whole.visual_index.tolist() == [*before.visual_index.tolist(), *[-1] * len(after)]
    assert before.visual_index[-5:].tolist() == list(range(5))


def test_the_time_instruction_is_the_authors() -> None:
    assert time_instruction(61.005, [0.0, 1.5, 59.999]) == (
        "The video lasts for 61.01 seconds, and 3 frames are uniformly sampled from it. "
        "These frames are located at 0.00s,1.50s,60.00s."
        "Please answer the following questions related to this video."
    )


def test_the_time_instruction_stands_between_video_and_question(tokenizer: Tokenizer) -> None:
    prompt = make_prompt(
        tokenizer, QUESTION, visual_tokens=3, policy=TIMED, duration=8.0, times=[0.0, 4.0]
    )
    after = prompt.tokens[int(np.flatnonzero(prompt.visual_index >= 0)[-1]) + 1 :]
    told = time_instruction(8.0, [0.0, 4.0])
    assert said(tokenizer, after) == f"\n{told}\n{QUESTION}{AFTER}"
    # Off, neither the duration nor the times show.
    plain = make_prompt(
        tokenizer, QUESTION, visual_tokens=3, policy=PLAIN, duration=8.0, times=[0.0, 4.0]
    )
    after = plain.tokens[int(np.flatnonzero(plain.visual_index >= 0)[-1]) + 1 :]
    assert said(tokenizer, after) == f"\n{QUESTION}{AFTER}"


def test_an_answer_ends_its_turn(tokenizer: Tokenizer) -> None:
    tokens = answer_tokens(tokenizer, "The stars come first.")
    assert tokens[-1] == end_token(tokenizer) == tokenizer.token_to_id("<|im_end|>")
    assert tokens.count(tokens[-1]) == 1
    assert tokenizer.decode(tokens[:-1]) == "The stars come first."
    assert answer_tokens(tokenizer, "") == [end_token(tokenizer)]


def test_a_token_that_a_tokenizer_begins_texts_with_is_left_out(tokenizer: Tokenizer) -> None:
    other = Tokenizer.from_str(tokenizer.to_str())
    other.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert other.encode("a").ids != tokenizer.encode("a").ids
    whole = [
        make_prompt(one, QUESTION, visual_tokens=2, policy=PLAIN).tokens.tolist()
        for one in (tokenizer, other)
    ]
    assert whole[0] == whole[1] and answer_tokens(tokenizer, "a") == answer_tokens(other, "a")


def test_nonsense_is_refused(tokenizer: Tokenizer) -> None:
    for wrong in ({"after_video": "\n"}, {"frame_times": "none"}, {"labels": "all"}):
        name, value = next(iter(wrong.items()))
        with pytest.raises(InputError, match=f"{name} '.*': must be one of '"):
            PromptPolicy(**{name: value})  # type: ignore[arg-type]
    for token in (*ADDED, "<image>"):
        with pytest.raises(InputError, match="holds <"):
            make_prompt(tokenizer, f"What {token}?", visual_tokens=1, policy=PLAIN)


# --------------------------------------------------------------- the authors' prompts, with Qwen2

BEFORE_IDS = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198]
AFTER_IDS = [151645, 198, 151644, 77091, 198]
VIDEO = -200  # the authors' number for the place of the video
VISUAL = 3
AFTER_VIDEO = ("newline", "two_newlines", "nothing")
# Any text, with what the tokenizer treats in its own way; nothing that ends a turn.
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs", "Cn"])),
        st.sampled_from(["\n", " \n\n", "  ", "?", "What", "12.50s", "user", "e\u0301", "你好"]),
    )
).map(lambda parts: "".join(parts).replace("<", ""))


@pytest.fixture(scope="module")
def qwen() -> Tokenizer:
    return qwen_tokenizer()


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def with_video(prompt: Prompt) -> list[int]:
    """The ids with one `VIDEO` in the place of all visual tokens."""
    places = np.flatnonzero(prompt.visual_index >= 0)
    assert len(places) == VISUAL and places[-1] - places[0] == VISUAL - 1
    tokens = prompt.tokens.tolist()
    return [*tokens[: places[0]], VIDEO, *tokens[places[-1] + 1 :]]


def authors_pieces(tokenizer: Tokenizer, text: str) -> list[int]:
    """Inference: the whole text cut at the video's mark, each piece tokenized by itself."""
    before, after = text.split("<image>")
    return [*ids(tokenizer, before), VIDEO, *ids(tokenizer, after)]


def authors_dpo(
    tokenizer: Tokenizer, question: str, answer: str
) -> tuple[list[int], list[int | None]]:
    """The DPO training script: ids of prompt and answer, and labels (None: not learned)."""
    start, end, newline = ADDED["<|im_start|>"], ADDED["<|im_end|>"], 198
    system = [("x", ids(tokenizer, "system")), ("x", [newline])]
    system += [("x", ids(tokenizer, "You are a helpful assistant."))]
    user = [("x", ids(tokenizer, "user")), ("x", [newline, VIDEO, newline])]
    user += [("x", ids(tokenizer, "\n" + question.strip()))]
    assistant = [("x", ids(tokenizer, "assistant")), ("x", [newline])]
    assistant += [("learned", ids(tokenizer, answer))]
    tokens: list[int] = []
    labels: list[int | None] = []
    for turn in (system, user, assistant):
        marked = [("learned", [start]), *turn, ("learned", [end, newline])]
        for kind, part in marked:
            tokens += part
            labels += part if kind == "learned" else [None] * len(part)
    return tokens, labels


@pytest.mark.parametrize(
    ("after_video", "between"),
    [("newline", [198]), ("two_newlines", [198, 198]), ("nothing", [])],
)
def test_the_ids_are_the_authors(qwen: Tokenizer, after_video: Any, between: list[int]) -> None:
    policy = PromptPolicy(after_video=after_video)
    prompt = make_prompt(qwen, "Hello world", visual_tokens=VISUAL, policy=policy)
    assert with_video(prompt) == [*BEFORE_IDS, VIDEO, *between, 9707, 1879, *AFTER_IDS]
    assert not prompt.supervised.any() and len(prompt.supervised) == len(prompt.tokens)
    assert answer_tokens(qwen, "Hello world") == [9707, 1879, 151645]
    assert answer_tokens(qwen, "Hello world", labels="chatml") == [9707, 1879, 151645, 198]


@given(TEXTS)
@settings(deadline=None)
def test_the_harness_and_the_demo_cut_the_text_at_the_video(qwen: Tokenizer, question: str) -> None:
    told = time_instruction(61.0, [0.0, 2.5])
    texts = {
        ("newline", False): f"<image>\n{question}",
        ("newline", True): f"<image>\n{told}\n{question}",
        ("nothing", True): f"<image>{told}\n{question}",
        ("nothing", False): f"<image>{question}",
    }
    for (after_video, timed), text in texts.items():
        policy = PromptPolicy(after_video=after_video, time_instruction=timed)  # type: ignore[arg-type]
        prompt = make_prompt(
            qwen, question, visual_tokens=VISUAL, policy=policy, duration=61.0, times=[0.0, 2.5]
        )
        assert with_video(prompt) == authors_pieces(qwen, f"{BEFORE}{text}{AFTER}")


@given(TEXTS, TEXTS)
@settings(deadline=None)
def test_the_dpo_script_learns_these_tokens(qwen: Tokenizer, question: str, answer: str) -> None:
    policy = PromptPolicy(after_video="two_newlines", labels="chatml")
    prompt = make_prompt(qwen, question, visual_tokens=VISUAL, policy=policy)
    answered = answer_tokens(qwen, answer, labels="chatml")
    tokens, labels = authors_dpo(qwen, question, answer)
    assert [*with_video(prompt), *answered] == tokens
    # The first label is lost: it has nothing before it to be predicted from.
    wanted = [label for label in labels[1:] if label is not None]
    assert [*prompt.tokens[prompt.supervised].tolist(), *answered] == wanted
    # And at the same places, once the video has the length it has.
    labels[tokens.index(VIDEO) : tokens.index(VIDEO) + 1] = [None] * VISUAL
    places = [at for at in range(1, len(prompt.tokens)) if labels[at] is not None]
    assert np.flatnonzero(prompt.supervised).tolist() == places
    assert prompt.supervised.sum() == 6 and prompt.supervised.dtype == np.bool_


@pytest.mark.parametrize("after_video", AFTER_VIDEO)
def test_six_tokens_of_any_prompt_are_learned_with_chatml_labels(
    tokenizer: Tokenizer, qwen: Tokenizer, after_video: Any
) -> None:
    policy = PromptPolicy(after_video=after_video, labels="chatml", time_instruction=True)
    # In a small vocabulary the id that stands for the video may be that of a special token.
    for one in (tokenizer, qwen):
        prompt = make_prompt(one, QUESTION, visual_tokens=9, policy=policy, times=[1.0])
        learned = said(one, prompt.tokens[prompt.supervised])
        assert learned == "<|im_end|>\n<|im_start|><|im_end|>\n<|im_start|>"
        assert not prompt.supervised[prompt.visual_index >= 0].any()


def test_a_blank_line_is_two_tokens_for_the_dpo_script_only(qwen: Tokenizer) -> None:
    policy = PromptPolicy(after_video="two_newlines")
    prompt = make_prompt(qwen, " \nHello ", visual_tokens=VISUAL, policy=policy)
    assert with_video(prompt) == [*BEFORE_IDS, VIDEO, 198, 198, 9707, *AFTER_IDS]
    prompt = make_prompt(qwen, "\nHello", visual_tokens=VISUAL, policy=PLAIN)
    assert with_video(prompt) == [*BEFORE_IDS, VIDEO, 271, 9707, *AFTER_IDS]


def test_frames_stand_where_the_question_says(tokenizer: Tokenizer) -> None:
    question = "<image>\n<image>\nA man speaks.\n<image>\nWhat is he called?"
    prompt = interleaved_prompt(tokenizer, question, frames=3, tokens_per_frame=2)
    assert prompt.visual_index[prompt.visual_index >= 0].tolist() == list(range(6))
    texts, shown = [""], prompt.visual_index >= 0
    for place, token in enumerate(prompt.tokens.tolist()):
        if not shown[place]:
            texts[-1] += said(tokenizer, np.array([token]))
        elif prompt.visual_index[place] % 2 == 0:
            texts.append("")
    assert "<image>".join(texts) == BEFORE + question + AFTER


def test_frames_that_all_come_first_make_the_plain_prompt(tokenizer: Tokenizer) -> None:
    plain = make_prompt(tokenizer, QUESTION, visual_tokens=6, policy=PLAIN)
    marks = f"<image><image><image>\n{QUESTION}"
    prompt = interleaved_prompt(tokenizer, marks, frames=3, tokens_per_frame=2)
    assert prompt.tokens.tolist() == plain.tokens.tolist()
    assert prompt.visual_index.tolist() == plain.visual_index.tolist()


@pytest.mark.parametrize("question", ["<image>what?", "<image><image><image>?", "<|im_end|>"])
def test_marks_that_do_not_fit_the_frames_are_refused(tokenizer: Tokenizer, question: str) -> None:
    with pytest.raises(InputError, match="<image> for 2 frames|a token of the template"):
        interleaved_prompt(tokenizer, question, frames=2, tokens_per_frame=1)
