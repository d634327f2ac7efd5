"""The paper's baseline SFT_LLM: supervised fine-tuning on answers that a language model wrote.

tpo frames --config=ablations/sft_llm
tpo curate --config=ablations/sft_llm --answers=FILE.jsonl

FILE has a line an answer, with "video", "question" and "answer". No reference is needed:
`tpo train` follows `tpo curate`. The rate is that of the recipe: which one the paper's baselines
had is not known.
"""

from ml_collections import ConfigDict

from tpo_jax.cli.config import load_config


def get_config() -> ConfigDict:
    """LongVA-TPO with what differs."""
    config = load_config("longva_7b_tpo").unlock()
    config.run_dir = "runs/ablations/sft_llm"
    config.loss.dpo_weight = 0.0
    config.loss.sft_weight = 1.0
    return config
