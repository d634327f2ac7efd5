"""What lmms-eval reads to find the model `tpo_jax` (entry point of its group `lmms_eval.models`).

It is loaded whichever model lmms-eval runs, so it does not import JAX.
"""

from typing import Any

MODEL_CLASS = "tpo_jax.cli.lmms_eval_model.TpoJax"


def manifest() -> Any:
    """The model's name and where its class is, as lmms-eval's registry takes it."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="tpo_jax", simple_class_path=MODEL_CLASS)
