"""Pairs and frames to batches, with Grain.

The plan of a run is one seeded array of pair numbers [steps, batch]; step n needs nothing but its
line of the plan, so resuming at n costs nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import grain
import numpy as np
from tokenizers import Tokenizer

from data_pipelines.batches import RowShape, fitting_shape, make_row, stack
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import Pair, train_frames
from data_pipelines.prompts import Prompt, PromptPolicy, answer_tokens, make_prompt


def plan_batches(pairs: int, *, steps: int, batch: int, seed: int) -> np.ndarray:
    """Pair numbers int64 [steps, batch]: a new permutation an epoch, joined end to end."""
    rng = np.random.default_rng(seed)
    epochs = -(-steps * batch // pairs)
    order = np.concatenate([rng.permutation(pairs) for _ in range(max(epochs, 1))])
    return order[: steps * batch].reshape(steps, batch)


class PairRows:
    """Rows of pairs: prompt with the video's training frames, chosen and rejected answer.

    With `answers=1` the rows hold the chosen answer alone (K=1): all that SFT learns from.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        store: FrameStore,
        tokenizer: Tokenizer,
        *,
        frames: int,
        visual_tokens: int,
        prompts: PromptPolicy,
        answers: Literal[1, 2] = 2,
        multiple: int = 1,
    ):
        """`visual_tokens` is what the model makes of a video of `frames` frames.

        The tokens of a row are a multiple of `multiple`.

        Raises:
          InputError: a pair's video is not in the store, or it has no rejected answer and
            `answers` is 2; names the pair.
        """
        stored = set(store.videos)
        for pair in pairs:
            if pair.video_id not in stored:
                raise InputError(
                    f"pair {pair.id}: its video {pair.video_id} is not in the frame store; "
                    "make pairs and frames from the same videos"
                )
            if answers == 2 and pair.rejected is None:
                raise InputError(
                    f"pair {pair.id}: has no rejected answer, which a loss on pairs needs; "
                    "config.loss.dpo_weight=0 trains on the chosen answers alone, by SFT"
                )
        self.pairs = pairs
        self.answers = answers
        self._store = store
        self._tokenizer = tokenizer
        self._frames = frames
        self._visual_tokens = visual_tokens
        self._prompts = prompts
        lengths = [self._prompt_lengths(pair) for pair in pairs]
        self.shape: RowShape = fitting_shape(
            [tokens for tokens, _ in lengths],
            [len(tokens) for pair in pairs for tokens in self._answers(pair)],
            [targets for _, targets in lengths],
            answers=answers,
            multiple=multiple,
        )

    def row(self, number: int) -> dict[str, np.ndarray]:
        """`make_row`'s arrays of one pair and its `frames`, uint8 [F, S, S, 3]."""
        pair = self.pairs[number]
        positions = train_frames(len(self._store.info(pair.video_id).times_F), self._frames)
        row = make_row(self._prompt(pair), self._answers(pair), self.shape, name=f"pair {pair.id}")
        return row | {"frames": self._store.frames(pair.video_id, positions)}

    def _prompt(self, pair: Pair) -> Prompt:
        info = self._store.info(pair.video_id)
        positions = train_frames(len(info.times_F), self._frames)
        return make_prompt(
            self._tokenizer,
            pair.question,
            visual_tokens=self._visual_tokens,
            policy=self._prompts,
            duration=info.duration,
            times=info.told_times(self._prompts.frame_times)[positions].tolist(),
        )

    def _prompt_lengths(self, pair: Pair) -> tuple[int, int]:
        """How many tokens a pair's prompt has, and how many of them are targets."""
        prompt = self._prompt(pair)
        return len(prompt.tokens), int(prompt.supervised.sum())

    def _answers(self, pair: Pair) -> list[list[int]]:
        texts = [pair.chosen]
        if self.answers == 2:
            assert pair.rejected is not None  # checked when the rows were made
            texts.append(pair.rejected)
        labels = self._prompts.labels
        return [answer_tokens(self._tokenizer, text, labels=labels) for text in texts]


def load_batches(
    rows: PairRows,
    plan: np.ndarray,
    *,
    start: int = 0,
    reference: Mapping[str, np.ndarray] | None = None,
    threads: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of `plan` from step `start` on, read ahead by threads.

    `reference` (pair id -> float32 [2, S+A]) adds `reference_logprobs`.
    """

    def load(step: int) -> dict[str, np.ndarray]:
        numbers = plan[step]
        batch = stack([rows.row(int(number)) for number in numbers])
        if reference is not None:
            ids = [rows.pairs[int(number)].id for number in numbers]
            batch["reference_logprobs"] = np.stack([reference[one] for one in ids])
        return batch

    return read_ahead(load, start, len(plan), threads=threads)


def read_ahead(
    load: Callable[[int], dict[str, np.ndarray]], start: int, stop: int, *, threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """`load(start)`, ..., `load(stop - 1)`, in order, made by threads before they are asked for."""
    dataset = grain.MapDataset.range(start, stop).map(load)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset.to_iter_dataset(options))
