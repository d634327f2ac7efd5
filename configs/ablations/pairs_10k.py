"""The paper's ablation of the number of pairs: 10,000, as in the recipe.

tpo frames --config=ablations/pairs_10k
"""

from ml_collections import ConfigDict

from tpo_jax.cli.config import load_config


def get_config() -> ConfigDict:
    """LongVA-TPO with what differs."""
    config = load_config("longva_7b_tpo").unlock()
    config.run_dir = "runs/ablations/pairs_10k"
    config.curate.pairs = 10_000
    return config
