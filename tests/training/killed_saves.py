"""Saves checkpoints until it is killed: the process of `test_killed_saves.py`."""

import sys
from itertools import count
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from tpo_jax.training.checkpoints import Checkpoints, SaveConfig
from tpo_jax.training.step import TrainState, init_state

KERNEL = (1024, 1024)


def kernel_of(step: int) -> np.ndarray:
    """Random, since Orbax makes little of bytes that repeat."""
    return np.random.default_rng(step).standard_normal(KERNEL, np.float32)


def state_of(step: int) -> TrainState:
    """A state of one parameter."""
    return init_state({"projector": {"kernel": jnp.asarray(kernel_of(step))}}, {}, optax.identity())


if __name__ == "__main__":
    with Checkpoints(Path(sys.argv[1]), config=SaveConfig(save_every=1)) as checkpoints:
        for step in count((checkpoints.latest or 0) + 1):
            checkpoints.save(step, state_of(step), {})
