"""From a question to the tokens of a prompt, with the place where the video goes.

The template is `qwen_1_5` (ChatML). The text before and after the video is tokenized separately, as
the authors' code does, so the borders of the video are always token borders.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from tokenizers import Tokenizer

from data_pipelines.errors import InputError
from data_pipelines.tokenizer import END, SPECIAL_TOKENS, TURN

SYSTEM = "You are a helpful assistant."
BEFORE_VIDEO = f"{TURN}system\n{SYSTEM}{END}\n{TURN}user\n"
AFTER_QUESTION = f"{END}\n{TURN}assistant\n"
VIDEO_MARK = "<image>"  # what the authors write where the video goes

AfterVideo = Literal["newline", "two_newlines", "nothing"]
FrameTimes = Literal["exact", "reference"]
Labels = Literal["answer", "chatml"]


@dataclass(frozen=True, kw_only=True)
class PromptPolicy:
    """How a question is put, and which of its tokens are learned. The authors differ among theirs.

    Attributes:
      time_instruction: adds LLaVA-Video's sentence with the duration and the time of every frame,
        on a line of its own before the question.
      after_video: what stands between the video and the text.
        "newline": one. The evaluation harness, the SFT training script and LongVA's examples.
          (That script keeps the newline which its data has before the question, so that with
          the time instruction a blank line follows it; the harness has none there.)
        "two_newlines": two, each a token of its own, and the question without space around it.
          The DPO training script.
        "nothing": the text begins at once. LLaVA-Video's demo, whose text begins with the time
          instruction.
      frame_times: which times the time instruction tells.
        "exact": when the file says that the frames are shown.
        "reference": frame number over frame rate, by the rule of the authors' loader
          (`FramePolicy.sample`). At one frame a second of a constant, whole rate both agree.
      labels: what is learned.
        "answer": the answer and the token that ends its turn.
        "chatml": as in the DPO training script, also the newline after the answer's end, and six
          tokens of the prompt (`Prompt.supervised`). They are the same for both answers of a
          pair and cancel in the DPO margin, but they count in its SFT term and in the log-probs
          it reports. The SFT training script is different again: there every newline token and
          every turn token is learned, inside the question too. That one is not offered.
    """

    time_instruction: bool = False
    after_video: AfterVideo = "newline"
    frame_times: FrameTimes = "exact"
    labels: Labels = "answer"

    def __post_init__(self) -> None:
        choices = (("after_video", AfterVideo), ("frame_times", FrameTimes), ("labels", Labels))
        for name, kind in choices:
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                listed = ", ".join(map(repr, known))
                raise InputError(f"prompt policy {name} {value!r}: must be one of {listed}")


def _nowhere() -> np.ndarray:
    return np.zeros(0, np.bool_)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The tokens of a prompt of P places, video included.

    Attributes:
      tokens: int32 [P], ids; 0 where the video stands.
      visual_index: int32 [P], the number of the visual token that stands there, or -1.
      supervised: bool [P], where the token is a target, to be predicted from those before it. All
        False by default.
    """

    tokens: np.ndarray
    visual_index: np.ndarray
    supervised: np.ndarray = field(default_factory=_nowhere)

    def __post_init__(self) -> None:
        if len(self.supervised) == 0:
            object.__setattr__(self, "supervised", np.zeros(len(self.tokens), np.bool_))


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
    """The prompt of one question on a video of `visual_tokens` tokens.

    Args:
      tokenizer: from `load_tokenizer`.
      question: without anything that stands for the video.
      visual_tokens: what the model makes of the frames shown.
      policy: the form of the prompt, and what of it is supervised.
      duration: seconds; told with the time instruction.
      times: seconds of each frame shown; told with the time instruction.

    Raises:
      InputError: the question holds a token of the template, or stands for a video itself.
    """
    # The DPO training script strips its questions; the other sources take them as they are.
    asked = question.strip() if policy.after_video == "two_newlines" else question
    said = f"{time_instruction(duration, times)}\n" if policy.time_instruction else ""
    after = question_tokens(tokenizer, said + asked, after_video=policy.after_video)
    prompt = _around_video(tokenizer, visual_tokens, after)
    if policy.labels == "chatml":
        return replace(prompt, supervised=_chatml_targets(tokenizer, prompt))
    return prompt


def interleaved_prompt(
    tokenizer: Tokenizer, question: str, *, frames: int, tokens_per_frame: int
) -> Prompt:
    """The prompt of a question that says with `<image>` where each frame goes.

    Texts between frames are tokenized one by one, as the authors' code does.

    Args:
      tokenizer: from `load_tokenizer`.
      question: holds the mark once for each frame.
      frames: how many are shown.
      tokens_per_frame: what the model makes of each.

    Raises:
      InputError: the question holds a token of the template, or another number of marks.
    """
    _check_template(question)
    texts = question.split(VIDEO_MARK)
    if len(texts) != frames + 1:
        raise InputError(
            f"question {question[:80]!r}: {len(texts) - 1} of {VIDEO_MARK} for {frames} frames; "
            "must be one each"
        )
    parts = [BEFORE_VIDEO + texts[0], *texts[1:]]
    parts[-1] += AFTER_QUESTION
    tokens: list[int] = []
    visual_index: list[int] = []
    for number, part in enumerate(parts):
        text = _encode(tokenizer, part)
        shown = range(number * tokens_per_frame, (number + 1) * tokens_per_frame)
        shown = shown if number < frames else range(0)
        tokens += [*text, *[0] * len(shown)]
        visual_index += [*[-1] * len(text), *shown]
    return Prompt(tokens=np.array(tokens, np.int32), visual_index=np.array(visual_index, np.int32))


def video_prompt(tokenizer: Tokenizer, *, visual_tokens: int) -> Prompt:
    """The prompt up to the end of the video; `question_tokens` go on from there."""
    return _around_video(tokenizer, visual_tokens, [])


def question_tokens(
    tokenizer: Tokenizer, question: str, *, after_video: AfterVideo = "newline"
) -> list[int]:
    """Ids from the end of the video to where the answer begins.

    Raises:
      InputError: the question holds a token of the template, which would end the turn, or the
        authors' mark of a video, whose place is not in the question here.
    """
    _check_template(question)
    if VIDEO_MARK in question:
        raise InputError(
            f"question {question!r}: holds {VIDEO_MARK}; leave it out, the video's place is given"
        )
    if after_video == "nothing":
        return _encode(tokenizer, f"{question}{AFTER_QUESTION}")
    # A blank line written as one text would be another token.
    first = _encode(tokenizer, "\n") if after_video == "two_newlines" else []
    return first + _encode(tokenizer, f"\n{question}{AFTER_QUESTION}")


def _check_template(question: str) -> None:
    for token in SPECIAL_TOKENS:
        if token in question:
            raise InputError(f"question {question!r}: holds {token}, a token of the template")


def answer_tokens(tokenizer: Tokenizer, answer: str, *, labels: Labels = "answer") -> list[int]:
    """An answer's ids with the end-of-turn token that the model must learn to say.

    With labels "chatml" the newline after it follows, as in the authors' DPO training script.
    """
    after = _encode(tokenizer, "\n") if labels == "chatml" else []
    return [*_encode(tokenizer, answer), end_token(tokenizer), *after]


def end_token(tokenizer: Tokenizer) -> int:
    """Id of the token that ends a turn; `load_tokenizer` has made sure that there is one."""
    token = tokenizer.token_to_id(END)
    assert token is not None
    return token


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


def _chatml_targets(tokenizer: Tokenizer, prompt: Prompt) -> np.ndarray:
    """Where the DPO training script supervises a prompt, bool [P]: six places.

    Each turn begins with a target, but the first, which nothing predicts; each closed turn ends
    with two, the end of the turn and its newline.
    """
    text = prompt.visual_index < 0
    ends = text & (prompt.tokens == end_token(tokenizer))
    begins = text & (prompt.tokens == tokenizer.token_to_id(TURN))
    begins[0] = False
    newlines = np.roll(ends, 1)  # a prompt never ends with the end of a turn
    return ends | newlines | begins
