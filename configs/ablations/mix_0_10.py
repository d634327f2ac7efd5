"""The paper's ablation of the mix, localized to comprehensive pairs 0:10.

tpo frames --config=ablations/mix_0_10
"""

from ml_collections import ConfigDict

from tpo_jax.cli.config import load_config


def get_config() -> ConfigDict:
    """LongVA-TPO with what differs."""
    config = load_config("longva_7b_tpo").unlock()
    config.run_dir = "runs/ablations/mix_0_10"
    config.curate.localized_share = 0.0
    return config
