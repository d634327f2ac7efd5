"""The paper's ablation of the mix, localized to comprehensive pairs 8:2.

tpo frames --config=ablations/mix_8_2
"""

from ml_collections import ConfigDict

from tpo_jax.cli.config import load_config


def get_config() -> ConfigDict:
    """LongVA-TPO with what differs."""
    config = load_config("longva_7b_tpo").unlock()
    config.run_dir = "runs/ablations/mix_8_2"
    config.curate.localized_share = 0.8
    return config
