"""How far a policy has gone from the model it came from: the KL divergence over its own answers."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.tasks.item import Item
from data_pipelines.answering import Request
from data_pipelines.batches import RowShape, make_row, round_up, stack
from data_pipelines.frames import FrameStore
from data_pipelines.pairs import train_frames
from data_pipelines.prompts import PromptPolicy, answer_tokens, make_prompt
from tpo_jax.api import Answerer, LoadedModel
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.models.video_lmm import Params
from tpo_jax.preference.logprobs import row_logprobs

ROWS = 8


def kl_to(
    base: LoadedModel,
    policy: LoadedModel,
    items: Sequence[Item],
    store: FrameStore,
    *,
    prompts: PromptPolicy,
    frames: int,
    max_new_tokens: int,
) -> float:
    """KL(policy, base) of whole answers, nats: the mean of log p - log b over answers drawn from p.

    One answer is drawn for each item at temperature 1, and both models give its log-prob on the
    same row. A mean over samples: a small one may come out below zero.
    """
    sampling = SamplingConfig(temperature=1.0, max_new_tokens=max_new_tokens)
    answerer = Answerer(policy, prompts=prompts, sampling=sampling)
    ids = {name: video for video in store.videos for name in store.info(video).names}
    rows = []
    for item in items:
        info = store.info(ids[item.video])
        positions = train_frames(len(info.times_F), frames)
        pictures_FHWC = store.frames(ids[item.video], positions)
        request = Request(question=item.question, positions=np.arange(len(positions)))
        times = answerer.told_times(info)[positions]
        (said,) = answerer.answer_frames(pictures_FHWC, times, info.duration, [request])
        prompt = make_prompt(
            policy.tokenizer,
            item.question,
            visual_tokens=policy.config.tokens_per_video(len(positions)),
            policy=prompts,
            duration=info.duration,
            times=times.tolist(),
        )
        rows.append((prompt, answer_tokens(policy.tokenizer, said.text), pictures_FHWC))
    shape = RowShape(
        prompt_tokens=round_up(max(len(prompt.tokens) for prompt, _, _ in rows), 32),
        answer_tokens=round_up(max(len(answer) for _, answer, _ in rows), 8),
    )
    ratios = []
    for first in range(0, len(rows) - ROWS + 1, ROWS):
        batch = stack(
            [
                make_row(prompt, [answer], shape) | {"frames": pictures}
                for prompt, answer, pictures in rows[first : first + ROWS]
            ]
        )
        sums = [_summed(model.graph, model.params, batch) for model in (policy, base)]
        ratios.append(np.asarray(sums[0] - sums[1]))
    return float(np.mean(np.concatenate(ratios)))


@partial(jax.jit, static_argnums=0)
def _summed(graph: nnx.GraphDef, params: Params, batch: dict[str, np.ndarray]) -> jax.Array:
    logprobs_BKN = row_logprobs(nnx.merge(graph, params), batch)
    return jnp.sum(logprobs_BKN, axis=(1, 2))
