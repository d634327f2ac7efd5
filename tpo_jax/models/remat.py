"""What of a decoder layer is kept from the way forward for the way back, by name."""

from collections.abc import Callable
from typing import Literal

import jax
from jax.ad_checkpoint import checkpoint_name

from tpo_jax.attention.splash import RESIDUALS

# What a policy keeps is found by these names; whoever computes it marks it with one.
LAYER_INPUT = "layer_input"
ATTENTION = RESIDUALS  # in attention/splash.py

# full: of each layer its input; everything else is computed again.
# attention: that and what attention yields, which is not computed again.
# offload: of each layer its input, in the host's memory. none: everything.
Remat = Literal["none", "full", "attention", "offload"]


def mark(x: jax.Array, name: str) -> jax.Array:
    """`x`, under a name that a policy may keep it by."""
    return checkpoint_name(x, name)


def rematerialised(layer: Callable, remat: Remat) -> Callable:
    """The layer, to be computed again going backward as far as the policy says."""
    policies = jax.checkpoint_policies
    match remat:
        case "none":
            return layer
        case "full":
            return jax.checkpoint(layer)
        case "attention":
            return jax.checkpoint(layer, policy=policies.save_only_these_names(ATTENTION))
        case "offload":
            policy = policies.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=[LAYER_INPUT],
                offload_src="device",
                offload_dst="pinned_host",
            )
            return jax.checkpoint(layer, policy=policy)
