"""From a question to the tokens of a prompt, with the place where the video goes.

The template is `qwen_1_5` (ChatML). The text before and after the video is tokenized separately, as
the authors' code does, so the borders of the video are always token borders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from data_pipelines.errors import InputError

SYSTEM = "You are a helpful assistant."
BEFORE_VIDEO = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
AFTER_QUESTION = "<|im_end|>\n<|im_start|>assistant\n"
END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", END)


@dataclass(frozen=True, kw_only=True)
class PromptPolicy:
    """What stands between the video and the question.

    `time_instruction` adds LLaVA-Video's sentence with the duration and the time of every frame.
    """

    time_instruction: bool = False


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Token ids [P] and, for each, the number of the visual token that stands there, or -1."""

    tokens: np.ndarray
    visual_index: np.ndarray


def load_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's `tokenizer.json`.

    Raises:
      InputError: there is none, it cannot be read, or it lacks the ChatML tokens.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.exists():
        raise InputError(f"{path}: not found; a checkpoint folder needs its tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer file ({error})") from error
    for token in SPECIAL_TOKENS:
        if tokenizer.token_to_id(token) is None:
            raise InputError(f"{path}: has no token {token}; a ChatML (Qwen2) tokenizer is needed")
    # Trainers save theirs in the file; here texts are neither cut nor filled up unseen.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def time_instruction(duration: float, times: Sequence[float]) -> str:
    """LLaVA-Video's sentence about the video's length and where its frames lie (seconds)."""
    located = ",".join(f"{time:.2f}s" for time in times)
    return (
        f"The video lasts for {duration:.2f} seconds, and {len(times)} frames are uniformly "
        f"sampled from it. These frames are located at {located}."
        "Please answer the following questions related to this video."
    )


def make_prompt(
    tokenizer: Tokenizer,
    question: str,
    *,
    visual_tokens: int,
    policy: PromptPolicy,
    duration: float = 0.0,
    times: Sequence[float] = (),
) -> Prompt:
    """The prompt of one question on a video of `visual_tokens` tokens."""
    said = f"{time_instruction(duration, times)}\n" if policy.time_instruction else ""
    return _around_video(tokenizer, visual_tokens, question_tokens(tokenizer, said + question))


def video_prompt(tokenizer: Tokenizer, *, visual_tokens: int) -> Prompt:
    """The prompt up to the end of the video; `question_tokens` go on from there."""
    return _around_video(tokenizer, visual_tokens, [])


def question_tokens(tokenizer: Tokenizer, question: str) -> list[int]:
    """Ids from the end of the video to where the answer begins.

    Raises:
      InputError: the question holds a token of the template, which would end the turn.
    """
    for token in SPECIAL_TOKENS:
        if token in question:
            raise InputError(f"question {question!r}: holds {token}, a token of the template")
    return _encode(tokenizer, f"\n{question}{AFTER_QUESTION}")


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    # A tokenizer may be set to begin every text with a token of its own; here texts are joined.
    return tokenizer.encode(text, add_special_tokens=False).ids


def _around_video(tokenizer: Tokenizer, visual_tokens: int, after: list[int]) -> Prompt:
    before = _encode(tokenizer, BEFORE_VIDEO)
    tokens = np.zeros(len(before) + visual_tokens + len(after), np.int32)
    visual_index = np.full(len(tokens), -1, np.int32)
    tokens[: len(before)] = before
    tokens[len(before) + visual_tokens :] = after
    visual_index[len(before) : len(before) + visual_tokens] = np.arange(visual_tokens)
    return Prompt(tokens=tokens, visual_index=visual_index)


def answer_tokens(tokenizer: Tokenizer, answer: str) -> list[int]:
    """An answer's ids with the end-of-turn token that the model must learn to say."""
    return [*_encode(tokenizer, answer), end_token(tokenizer)]


def end_token(tokenizer: Tokenizer) -> int:
    """Id of the token that ends a turn; `load_tokenizer` has made sure that there is one."""
    token = tokenizer.token_to_id(END)
    assert token is not None
    return token
