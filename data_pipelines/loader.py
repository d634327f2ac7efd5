"""Pairs and frames to batches, with Grain.

Step n needs nothing but its line of the plan (`batch_plan.py`): resuming there costs nothing, and a
host loads only its own rows of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import grain
import numpy as np
from absl import flags
from tokenizers import Tokenizer

from data_pipelines.batch_plan import BatchPlan
from data_pipelines.batches import RowShape, fitting_shape, make_row, stack
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import Pair, train_frames
from data_pipelines.prompts import Prompt, PromptPolicy, answer_tokens, make_prompt


class PairRows:
    """Rows of pairs: prompt with the video's training frames, chosen and rejected answer.

    With `answers=1` the rows hold the chosen answer alone (K=1): all that SFT learns from.

    Attributes:
      pairs: those that can be trained.
      dropped: (pair id, reason) of the others.
      shapes: of rows, from short to long.
      buckets: int64 [pairs], the shape of each pair: the first that holds its answers.
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
        answer_buckets: Sequence[int] = (),
        max_tokens: int = 0,
    ):
        """`visual_tokens` is what the model makes of a video of `frames` frames.

        The tokens of a row are a multiple of `multiple`. Pairs are grouped by the first of
        `answer_buckets` tokens that holds their answers, and padded to the longest of the group.
        Prompt and answer may not be
        longer than `max_tokens`, if it is not 0: where an answer is at fault the pair is dropped.

        Raises:
          InputError: a pair's video is not in the store, or it has no rejected answer and
            `answers` is 2, or its prompt would have to be cut; names the pair. Or no pair is left.
        """
        stored = set(store.videos)
        self.answers = answers
        self._store = store
        self._tokenizer = tokenizer
        self._frames = frames
        self._visual_tokens = visual_tokens
        self._prompts = prompts
        self.pairs: list[Pair] = []
        self.dropped: list[tuple[str, str]] = []
        lengths: list[tuple[int, int, int]] = []  # tokens of the prompt, its targets, the answer
        for pair in pairs:
            self._check(pair, stored)
            prompt, targets = self._prompt_lengths(pair)
            told = self._answers(pair)
            longest = max(map(len, told))
            if max_tokens and prompt >= max_tokens:
                raise InputError(
                    f"pair {pair.id}: its prompt of {prompt} tokens would be cut inside the video; "
                    f"show fewer than {frames} frames, or raise config.train.max_tokens"
                    f"={max_tokens}"
                )
            if max_tokens and prompt + longest > max_tokens:
                self.dropped.append((pair.id, f"{prompt + longest} tokens with its answer"))
            elif answers == 2 and told[0] == told[1]:
                self.dropped.append((pair.id, "chosen and rejected are the same tokens"))
            else:
                self.pairs.append(pair)
                lengths.append((prompt, targets, longest))
        if not self.pairs:
            raise InputError(
                f"none of {len(pairs)} pairs can be trained; the first, {self.dropped[0][0]}: "
                f"{self.dropped[0][1]}"
                if self.dropped
                else "there are no pairs to train"
            )
        self._lengths = np.array(lengths, np.int64)
        bounds = sorted({*answer_buckets, int(self._lengths[:, 2].max())})
        found = np.searchsorted(bounds, self._lengths[:, 2])
        used = np.unique(found)
        self.buckets = np.searchsorted(used, found).astype(np.int64)
        self.shapes = tuple(self._shape(bucket, multiple) for bucket in range(len(used)))

    def _check(self, pair: Pair, stored: set[str]) -> None:
        if pair.video_id not in stored:
            raise InputError(
                f"pair {pair.id}: its video {pair.video_id} is not in the frame store; "
                "make pairs and frames from the same videos"
            )
        if self.answers == 2 and pair.rejected is None:
            raise InputError(
                f"pair {pair.id}: has no rejected answer, which a loss on pairs needs; "
                "config.loss.dpo_weight=0 trains on the chosen answers alone, by SFT"
            )

    def _shape(self, bucket: int, multiple: int) -> RowShape:
        """Of a bucket: room for every prompt of this and shorter ones, and for its answers.

        Shorter pairs may fill a batch up. All have as many prompt targets: a table of the
        reference's log-probs is joined to any of them.
        """
        held = self._lengths[self.buckets <= bucket]
        return fitting_shape(
            held[:, 0].tolist(),
            held[:, 2].tolist(),
            self._lengths[:, 1].tolist(),
            answers=self.answers,
            multiple=multiple,
        )

    def row(self, number: int, bucket: int | None = None) -> dict[str, np.ndarray]:
        """`make_row`'s arrays of one pair, in the shape of its own bucket or of a longer one."""
        pair = self.pairs[number]
        shape = self.shapes[self.buckets[number] if bucket is None else bucket]
        return make_row(self._prompt(pair), self._answers(pair), shape, name=f"pair {pair.id}")

    def ids(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of these pairs."""
        return [self.pairs[int(number)].id for number in numbers]

    def frames(self, numbers: Sequence[int]) -> np.ndarray:
        """The training frames of these pairs, uint8 [B, F, S, S, 3]."""
        size = self._store.size
        frames_BFHWC = np.empty((len(numbers), self._frames, size, size, 3), np.uint8)
        for place, number in enumerate(numbers):
            video = self.pairs[number].video_id
            positions = train_frames(len(self._store.info(video).times_F), self._frames)
            self._store.frames(video, positions, out=frames_BFHWC[place])
        return frames_BFHWC

    def padding(self, plan: BatchPlan) -> list[dict[str, int]]:
        """For every shape: tokens of a row, steps of the plan, and tokens of them that say nothing.

        Keys: "row_tokens", "steps", "tokens", "padding".
        """
        told = self._told_tokens()
        found = []
        for bucket, shape in enumerate(self.shapes):
            steps = plan.buckets_S == bucket
            row = shape.prompt_tokens + self.answers * shape.answer_tokens
            tokens = int(plan.numbers_SB[steps].size) * row
            said = int(told[plan.numbers_SB[steps]].sum())
            found.append(
                {
                    "row_tokens": row,
                    "steps": int(steps.sum()),
                    "tokens": tokens,
                    "padding": tokens - said,
                }
            )
        return found

    def _told_tokens(self) -> np.ndarray:
        """Tokens of each pair: prompt and answers, int64 [pairs]."""
        answers = [sum(map(len, self._answers(pair))) for pair in self.pairs]
        return self._lengths[:, 0] + np.array(answers, np.int64)

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
    plan: BatchPlan,
    *,
    start: int = 0,
    places: Sequence[int] | np.ndarray | None = None,
    reference: Mapping[str, np.ndarray] | None = None,
    threads: int = 2,
    workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of `plan` from step `start` on, read ahead.

    Args:
      rows: of the pairs.
      plan: of all hosts.
      start: step to begin at.
      places: of a batch, that this host loads; None means all.
      reference: pair id -> float32 [2, S+A], adds `reference_logprobs`.
      threads: that read ahead.
      workers: processes that read ahead instead, if not 0; what they yield is the same.
    """

    def load(step: int) -> dict[str, np.ndarray]:
        bucket = int(plan.buckets_S[step])
        numbers = plan.numbers_SB[step] if places is None else plan.numbers_SB[step][places]
        batch = stack([rows.row(int(number), bucket) for number in numbers])
        batch["frames"] = rows.frames(numbers)
        if reference is not None:
            shape = rows.shapes[bucket]
            length = shape.prompt_targets + shape.answer_tokens
            told = [reference[one] for one in rows.ids(numbers)]
            batch["reference_logprobs"] = np.stack(
                [np.pad(one, ((0, 0), (0, length - one.shape[1]))) for one in told]
            )
        return batch

    return read_ahead(load, start, len(plan), threads=threads, workers=workers)


def read_ahead(
    load: Callable[[int], dict[str, np.ndarray]],
    start: int,
    stop: int,
    *,
    threads: int,
    workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """`load(start)`, ..., `load(stop - 1)`, in order, made before they are asked for."""
    dataset = grain.MapDataset.range(start, stop).map(load)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    ahead = dataset.to_iter_dataset(options)
    if workers:
        # Grain's processes read absl's flags, which only an absl program has parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(ahead)
