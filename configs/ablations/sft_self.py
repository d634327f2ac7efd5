"""The paper's baseline SFT_Self: supervised fine-tuning on the model's own chosen answers.

tpo frames --config=ablations/sft_self

No reference is needed: `tpo train` follows `tpo curate`. The rate is that of the recipe: which
one the paper's baselines had is not known.
"""

from ml_collections import ConfigDict

from tpo_jax.cli.config import load_config


def get_config() -> ConfigDict:
    """LongVA-TPO with what differs."""
    config = load_config("longva_7b_tpo").unlock()
    config.run_dir = "runs/ablations/sft_self"
    config.loss.dpo_weight = 0.0
    config.loss.sft_weight = 1.0
    return config
