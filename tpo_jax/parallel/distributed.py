"""Several processes, one on each host, as one run: how they find each other and take turns.

A single process needs none of this: then nothing is started, and all that is here does nothing.
"""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from tpo_jax.errors import InputError

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
PROCESSES = "JAX_NUM_PROCESSES"
PROCESS = "JAX_PROCESS_ID"
# Who is dead is noticed long before, by the heartbeat.
LONGEST_WAIT = 30 * 24 * 3600 * 1000  # milliseconds
_WAITS = itertools.count()  # every wait has a name of its own


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """A host that is silent for `heartbeat_seconds` is taken for dead, and all others end."""

    heartbeat_seconds: int = 100

    def __post_init__(self) -> None:
        """ValueError when a number makes no sense."""
        if self.heartbeat_seconds < 1:
            raise ValueError(f"heartbeat_seconds={self.heartbeat_seconds}: must be 1 or more")


def start(config: DistributedConfig) -> None:
    """Join the other processes, if the environment says that there are some.

    It does when JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID are set (`tpo launch` sets them), or on a Cloud TPU, where JAX finds all three by
    itself. To be called before anything is computed; a second call does nothing.

    Raises:
      InputError: the variables do not go together.
    """
    if jax.distributed.is_initialized():
        return
    told = _told_by_environment()
    if not told and not _on_tpu_slice():
        return
    # Only CPUs heed these two: how their processes talk, and that steps must not pile up.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.distributed.initialize(
        **told,
        heartbeat_timeout_seconds=config.heartbeat_seconds,
        # A process that stops alone waits for the others, who wait for it: so long at most.
        shutdown_timeout_seconds=config.heartbeat_seconds,
    )


def _told_by_environment() -> dict:
    values = {name: os.environ.get(name, "") for name in (COORDINATOR, PROCESSES, PROCESS)}
    if not any(values.values()):
        return {}
    if lacking := [name for name, value in values.items() if not value]:
        raise InputError(
            f"{lacking[0]} is not set in the environment; several processes need {COORDINATOR} "
            f"(host:port of process 0), {PROCESSES} and {PROCESS}, one process needs none of them"
        )
    try:
        processes, process = int(values[PROCESSES]), int(values[PROCESS])
    except ValueError:
        raise InputError(
            f"{PROCESSES}={values[PROCESSES]} and {PROCESS}={values[PROCESS]}: must be numbers"
        ) from None
    if not 0 <= process < processes:
        raise InputError(f"{PROCESS}={process}: must be from 0 to {PROCESSES}-1={processes - 1}")
    return {
        "coordinator_address": values[COORDINATOR],
        "num_processes": processes,
        "process_id": process,
    }


def _on_tpu_slice() -> bool:
    """Whether this is a host of a Cloud TPU that has, or may have, others beside it.

    Kubernetes names all hosts of a slice. Elsewhere JAX asks the machine's metadata; where
    TPU_SKIP_MDS_QUERY, which JAX and libtpu know, forbids that, there is one host.
    """
    platforms = os.environ.get("JAX_PLATFORMS") or "tpu"
    if "tpu" not in platforms.split(",") or find_spec("libtpu") is None:
        return False
    if not glob("/dev/accel*") and not glob("/dev/vfio/[0-9]*"):
        return False
    if hosts := os.environ.get("TPU_WORKER_HOSTNAMES"):
        return "," in hosts or int(os.environ.get("MEGASCALE_NUM_SLICES") or 1) > 1
    return "TPU_SKIP_MDS_QUERY" not in os.environ


def is_first_host() -> bool:
    """Whether this process writes what all share. True for a single process."""
    return jax.process_index() == 0


def wait_for_all(why: str) -> None:
    """Returns when every process has come here; `why` must be the same for all.

    No device takes part: an operation on devices would not wait for hours.
    """
    key = f"{why}, {next(_WAITS)}"
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=LONGEST_WAIT)


@contextlib.contextmanager
def first_host_first(why: str) -> Iterator[None]:
    """The block runs on the first host; on the others after it, so that they find it done."""
    if not is_first_host():
        wait_for_all(why)
    yield
    if is_first_host():
        wait_for_all(why)


@contextlib.contextmanager
def own_or_shared(folder: Path) -> Iterator[Path]:
    """The folder on the first host; on others one that is thrown away, so that they may write."""
    if is_first_host():
        yield folder
        return
    with tempfile.TemporaryDirectory() as own:
        yield Path(own)
