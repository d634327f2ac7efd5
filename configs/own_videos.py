"""Your own videos: the demo's settings, with questions that any video can be asked.

tpo frames --config=own_videos --config.videos=FOLDER
"""

from ml_collections import ConfigDict

from tpo_jax.cli.config import load_config


def get_config() -> ConfigDict:
    """The demo's config with what differs."""
    config = load_config("demo").unlock()
    config.run_dir = "runs/mine"
    config.videos = "videos"
    config.curate.questions = "time"
    config.curate.judge = "none"
    config.prompts.time_instruction = True  # or nothing says which frame lies at which second
    config.sampling.temperature = 1.0
    return config
