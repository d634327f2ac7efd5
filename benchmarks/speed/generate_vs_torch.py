"""Answers about one video beside transformers called the plain way: answers a second.

One video, several questions, each asked of two sets of its frames, as curation asks them. Ours:
frames are encoded once, each set is prefilled once, and the questions share it, side by side.
Theirs: for every question the frames go through the tower and `generate` makes the answer, one by
one. The same small model (random weights, exported by us, read by PyTorch), fp32, greedy, one
machine; the answers must be the same to the token.

    python -m benchmarks.speed.generate_vs_torch
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.step_vs_torch import model_json, spread

os.environ.setdefault("JAX_PLATFORMS", "cpu")

END = 2  # of an answer; random weights seldom say it
BEFORE = 14  # tokens before the video
Prompts = list[tuple[np.ndarray, list[np.ndarray]]]  # (frames shown, questions as tokens)


def make_prompts(arguments: argparse.Namespace) -> tuple[list[int], Prompts]:
    """Tokens before the video, and for each of the two sets of frames the questions after it."""
    rng = np.random.default_rng(0)
    draw = lambda count: rng.integers(3, arguments.vocabulary, count).astype(np.int32)  # noqa: E731
    questions = [draw(int(rng.integers(12, 30))) for _ in range(arguments.questions)]
    every = np.arange(arguments.frames)
    return draw(BEFORE).tolist(), [(every, questions), (every[::4], questions)]


def our_side(
    folder: Path, frames: np.ndarray, before: list[int], prompts: Prompts, tokens: int
) -> Callable[[], list[list[int]]]:
    """A function that gives all answers, set by set."""
    from data_pipelines.batches import prompt_row, round_up
    from data_pipelines.prompts import Prompt
    from tpo_jax.generation.engine import Ask, Engine
    from tpo_jax.generation.sampling import SamplingConfig
    from tpo_jax.interop.reader import read_checkpoint
    from tpo_jax.models.video_lmm import abstract_model

    checkpoint = read_checkpoint(folder)
    graph, _ = abstract_model(checkpoint.config)
    sampling = SamplingConfig(max_new_tokens=tokens)
    engine = Engine(checkpoint.config, graph, checkpoint.params, end_token=END, sampling=sampling)

    def text(ids: np.ndarray, length: int) -> dict[str, np.ndarray]:
        return prompt_row(Prompt(tokens=ids, visual_index=np.full(len(ids), -1, np.int32)), length)

    def answer() -> list[list[int]]:
        visual = engine.encode(frames)
        said: list[list[int]] = []
        for shown, questions in prompts:
            index = engine.visual_index(shown, len(frames))
            beginning = Prompt(
                tokens=np.array(before + [0] * len(index), np.int32),
                visual_index=np.concatenate([np.full(len(before), -1), index]).astype(np.int32),
            )
            room = round_up(len(beginning.tokens), 64)
            prefix = engine.prefill(visual, prompt_row(beginning, room))
            asks = [Ask(row=text(ids, 32), seed=0, temperature=0.0) for ids in questions]
            said += [one.tokens.tolist() for one in engine.answer(prefix, asks)]
        return said

    return answer


def their_side(
    folder: Path,
    config: dict[str, Any],
    frames: np.ndarray,
    before: list[int],
    prompts: Prompts,
    tokens: int,
) -> Callable[[], list[list[int]]]:
    """The same for PyTorch."""
    import torch

    from benchmarks.speed.torch_step import TorchModel

    model = TorchModel(config, "sdpa").load(folder).eval()
    pixels = ((torch.tensor(frames).float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)[None]
    language: Any = model.language
    embed = language.get_input_embeddings()

    @torch.no_grad()
    def answer() -> list[list[int]]:
        said = []
        for shown, questions in prompts:
            for question in questions:
                visual = model.videos(pixels[:, torch.tensor(shown)].contiguous())
                text = [embed(torch.tensor([ids]).long()) for ids in (before, question.tolist())]
                out = language.generate(
                    inputs_embeds=torch.cat([text[0], visual, text[1]], dim=1),
                    max_new_tokens=tokens,
                    do_sample=False,
                    use_cache=True,
                    eos_token_id=END,
                    pad_token_id=END,
                )
                said.append(out[0].tolist())
        return said

    return answer


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--questions", type=int, default=8, help="of each set of frames")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer, at most")
    parser.add_argument("--image", type=int, default=112, help="edge of a frame in pixels")
    parser.add_argument("--width", type=int, default=384, help="of the decoder")
    parser.add_argument("--layers", type=int, default=6, help="of the decoder")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()

    import torch

    from tpo_jax.interop.writer import write_checkpoint
    from tpo_jax.models.checkpoint_config import config_from_json
    from tpo_jax.models.video_lmm import init_params

    torch.set_num_threads(arguments.threads)
    content = model_json(arguments)
    config = config_from_json(content)
    before, prompts = make_prompts(arguments)
    size = (arguments.frames, arguments.image, arguments.image, 3)
    frames = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = init_params(config, 0)
        write_checkpoint(folder, config=config, params=params, json=content, dtype="float32")
        ours = our_side(folder, frames, before, prompts, arguments.tokens)
        theirs = their_side(folder, content, frames, before, prompts, arguments.tokens)
    start = time.perf_counter()
    mine = ours()
    first = time.perf_counter() - start
    if mine != theirs():
        sys.exit("the two sides do not say the same")
    turns = []
    for _ in range(arguments.turns):
        seen = []
        for side in (ours, theirs):
            start = time.perf_counter()
            side()
            seen.append(time.perf_counter() - start)
        turns.append(seen)
    answers = len(mine)
    print(
        f"{answers} answers of {min(map(len, mine))} to {max(map(len, mine))} tokens, the same on "
        f"both sides; videos of {[config.tokens_per_video(len(shown)) for shown, _ in prompts]} "
        "tokens"
    )
    print(f"answers a second: ours {spread([answers / a for a, _ in turns])}")
    print(f"answers a second: theirs {spread([answers / b for _, b in turns])}")
    print(f"ratio: {spread([b / a for a, b in turns])}")
    print(f"the first time, compiling: {first:.1f} s")


if __name__ == "__main__":
    main()
