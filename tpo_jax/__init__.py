"""tpo_jax: temporal preference optimization of video language models, in JAX.

`load`, `ask` and `VideoLMM` are imported on first use, so that importing tpo_jax, and with it
`tpo --help`, does not import JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tpo_jax.errors import InputError

if TYPE_CHECKING:
    from tpo_jax.api import ask, load
    from tpo_jax.models.video_lmm import VideoLMM

__version__ = "0.2.0"
__all__ = ["InputError", "VideoLMM", "__version__", "ask", "load"]

_HOME = {
    "ask": "tpo_jax.api",
    "load": "tpo_jax.api",
    "VideoLMM": "tpo_jax.models.video_lmm",
}


def __getattr__(name: str) -> Any:
    """Imports the names of `_HOME` from the modules where they live."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tpo_jax' has no attribute {name!r}")
