"""Saves checkpoints until it is killed: the process of `test_killed_saves.py`."""

import sys
from itertools import count
from pathlib import Path

import jax.numpy as jnp
import optax

from tpo_jax.training.checkpoints import Checkpoints
from tpo_jax.training.step import TrainState, init_state

KERNEL = (1024, 1024)


def state_of(value: float) -> TrainState:
    """A state in which every parameter is `value`."""
    return init_state({"projector": {"kernel": jnp.full(KERNEL, value)}}, {}, optax.identity())


if __name__ == "__main__":
    with Checkpoints(Path(sys.argv[1]), save_every=1) as checkpoints:
        for step in count((checkpoints.latest or 0) + 1):
            checkpoints.save(step, state_of(step))
