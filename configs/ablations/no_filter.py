"""The paper's ablation without the post-filter: pairs are kept whatever the judge says of them.

tpo frames --config=ablations/no_filter

It tells something where somebody judges. Of the recipe's own questions ("time") nobody does; those
of the demo ("rules") are judged.
"""

from ml_collections import ConfigDict

from tpo_jax.cli.config import load_config


def get_config() -> ConfigDict:
    """LongVA-TPO with what differs."""
    config = load_config("longva_7b_tpo").unlock()
    config.run_dir = "runs/ablations/no_filter"
    config.curate.post_filter = False
    return config
