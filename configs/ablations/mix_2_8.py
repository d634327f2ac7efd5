"""The paper's ablation of the mix, localized to comprehensive pairs 2:8.

tpo frames --config=ablations/mix_2_8
"""

from ml_collections import ConfigDict

from tpo_jax.cli.config import load_config


def get_config() -> ConfigDict:
    """LongVA-TPO with what differs."""
    config = load_config("longva_7b_tpo").unlock()
    config.run_dir = "runs/ablations/mix_2_8"
    config.curate.localized_share = 0.2
    return config
