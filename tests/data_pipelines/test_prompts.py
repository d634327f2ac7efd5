"""The prompt: the template to the letter, and the place of the video."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_pipelines.errors import InputError
from data_pipelines.lessons import train_tokenizer
from data_pipelines.prompts import (
    PromptPolicy,
    answer_tokens,
    end_token,
    load_tokenizer,
    make_prompt,
    question_tokens,
    time_instruction,
    video_prompt,
)

BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
QUESTION = "What comes first in the video?"
PLAIN = PromptPolicy()
TIMED = PromptPolicy(time_instruction=True)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(512)


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


# ------------------------------------------------------------------------------- tokenizer files


def test_a_tokenizer_is_read_from_its_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    read = load_tokenizer(tmp_path)
    assert read.get_vocab() == tokenizer.get_vocab()
    assert read.encode(f"{BEFORE}{QUESTION}").ids == tokenizer.encode(f"{BEFORE}{QUESTION}").ids


def test_padding_and_truncation_saved_in_the_file_are_not_used(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other = Tokenizer.from_str(tokenizer.to_str())
    other.enable_padding(length=64)
    other.enable_truncation(max_length=4)
    other.save(str(tmp_path / "tokenizer.json"))
    read = load_tokenizer(tmp_path)
    assert read.encode(BEFORE).ids == tokenizer.encode(BEFORE).ids


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_a_tokenizer_without_a_chatml_token_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, token: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str().replace(json.dumps(token), '"<other>"'))
    with pytest.raises(InputError) as error:
        load_tokenizer(tmp_path)
    assert str(path) in str(error.value) and token in str(error.value)


@pytest.mark.parametrize("content", [None, "", "{}", "not json", '{"model": 3}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="tokenizer.json") as error:
        load_tokenizer(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
