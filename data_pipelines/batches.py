"""One row a pair: `[prompt with video | answer 1 | answer 2]`, as fixed-shape arrays.

Both answers see the prompt, not each other, and continue its positions. The prompt is padded on the
left to its bucket, so that its last token, which predicts the first token of every answer, is
always at place P - 1. A plain question with one answer is the same row with one branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.prompts import Prompt

PAD_BRANCH = -1
PROMPT_BRANCH = 0


@dataclass(frozen=True, kw_only=True)
class RowShape:
    """Bucket of the row: prompt tokens P, tokens of each answer A, targets in the prompt S."""

    prompt_tokens: int
    answer_tokens: int
    prompt_targets: int = 0


def round_up(number: int, multiple: int) -> int:
    """The next multiple, so that few shapes are compiled."""
    return -(-number // multiple) * multiple


def fitting_shape(
    prompt_lengths: Sequence[int],
    answer_lengths: Sequence[int],
    prompt_targets: Sequence[int] = (),
    *,
    answers: int = 2,
    multiple: int = 1,
) -> RowShape:
    """The smallest bucket that holds them all: prompts in steps of 32, answers in steps of 8.

    Args:
      prompt_lengths: tokens of each prompt.
      answer_lengths: tokens of each answer.
      prompt_targets: how many tokens of each prompt are supervised; by default none.
      answers: of a row; with `multiple`, prompts get so much more room that the whole row is a
        multiple of it, as kernels and meshes want.
    """
    answer = round_up(max(answer_lengths), 8)
    prompt = round_up(max(prompt_lengths), 32)
    if multiple > 1:
        prompt = round_up(prompt + answers * answer, multiple) - answers * answer
    return RowShape(
        prompt_tokens=prompt,
        answer_tokens=answer,
        prompt_targets=max(prompt_targets, default=0),
    )


def prompt_row(prompt: Prompt, length: int, *, name: str = "prompt") -> dict[str, np.ndarray]:
    """A prompt padded on the left: tokens, visual_index, positions, branch; each int32 [length]."""
    pad = length - len(prompt.tokens)
    if pad < 0:
        raise InputError(
            f"{name}: its prompt of {len(prompt.tokens)} tokens does not fit the row's {length}"
        )
    return {
        "tokens": np.pad(prompt.tokens, (pad, 0)),
        "visual_index": np.pad(prompt.visual_index, (pad, 0), constant_values=-1),
        "positions": np.maximum(np.arange(length, dtype=np.int32) - pad, 0),
        "branch": np.where(np.arange(length) < pad, PAD_BRANCH, PROMPT_BRANCH).astype(np.int32),
    }


def make_row(
    prompt: Prompt,
    answers: Sequence[Sequence[int]],
    shape: RowShape,
    *,
    unsupervised: Sequence[int] | None = None,
    name: str = "pair",
) -> dict[str, np.ndarray]:
    """The arrays of one row, T = P + K * A for K answers.

    `unsupervised` is, for each answer, how many of its first tokens are given and not learned: with
    the question in the branch, several questions share one prompt that ends with the video.

    Returns:
      tokens, visual_index, positions, branch: int32 [T]; answers: int32 [K, A] target ids;
      answer_mask: float32 [K, A], 1 where a target is supervised; prompt_targets: int32 [S], ids in
      the prompt that are targets too (`Prompt.supervised`); prompt_places: int32 [S], the places
      in the row of the tokens that predict them; prompt_mask: float32 [S].

    Raises:
      InputError: the prompt or an answer is longer than its bucket, or the prompt has more targets;
        names the pair.
    """
    parts = [prompt_row(prompt, shape.prompt_tokens, name=name)]
    of_prompt = _prompt_targets(prompt, shape, name)
    targets = np.zeros((len(answers), shape.answer_tokens), np.int32)
    mask = np.zeros((len(answers), shape.answer_tokens), np.float32)
    places = np.arange(shape.answer_tokens, dtype=np.int32)
    for number, answer in enumerate(answers):
        if len(answer) > shape.answer_tokens:
            raise InputError(
                f"{name}: an answer of {len(answer)} tokens does not fit the row's "
                f"{shape.answer_tokens}"
            )
        targets[number, : len(answer)] = answer
        mask[number, unsupervised[number] if unsupervised else 0 : len(answer)] = 1
        branch = np.where(places < len(answer), number + 1, PAD_BRANCH).astype(np.int32)
        parts.append(
            {
                "tokens": targets[number],
                "visual_index": np.full_like(places, -1),
                "positions": len(prompt.tokens) + places,
                "branch": branch,
            }
        )
    row = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return row | {"answers": targets, "answer_mask": mask} | of_prompt


def _prompt_targets(prompt: Prompt, shape: RowShape, name: str) -> dict[str, np.ndarray]:
    """prompt_targets, prompt_places and prompt_mask of a row; zeros behind the last target."""
    found = np.flatnonzero(prompt.supervised)
    empty = shape.prompt_targets - len(found)
    if empty < 0:
        raise InputError(
            f"{name}: its prompt has {len(found)} supervised tokens, more than the row's "
            f"{shape.prompt_targets}"
        )
    if 0 in found:
        raise InputError(f"{name}: its prompt's first token is supervised, but nothing predicts it")
    padding = shape.prompt_tokens - len(prompt.tokens)
    return {
        "prompt_targets": np.pad(prompt.tokens[found], (0, empty)).astype(np.int32),
        "prompt_places": np.pad(padding + found - 1, (0, empty)).astype(np.int32),
        "prompt_mask": (np.arange(shape.prompt_targets) < len(found)).astype(np.float32),
    }


def stack(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of one bucket as a batch, [B, ...] each."""
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
