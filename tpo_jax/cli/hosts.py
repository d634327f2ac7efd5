"""A verb on several hosts that share the run folder: the first one talks, and writes what is one.

Without others (see `parallel/distributed.py`) all of this is as for a single process.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from data_pipelines.artefacts import building, check_unfinished, partial_folder
from tpo_jax.cli.settings import RunConfig
from tpo_jax.parallel.distributed import is_first_host, start, wait_for_all


@contextlib.contextmanager
def all_hosts(settings: RunConfig) -> Iterator[None]:
    """The block runs as one of all processes that the environment names.

    The first one prints; what the others say goes to RUN_DIR/logs/host_N.log. What is compiled is
    kept for the next run.
    """
    start(settings.distributed)
    keep_compiled(settings)
    if is_first_host():
        yield
        return
    path = Path(settings.run_dir) / "logs" / f"host_{jax.process_index()}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield


def keep_compiled(settings: RunConfig) -> None:
    """Programs are compiled once for all runs in this folder, unless another place is set."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(Path(settings.run_dir) / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@contextlib.contextmanager
def building_together(final: epath.PathLike, made_from: Mapping[str, Any]) -> Iterator[epath.Path]:
    """`building(resume=True)` of what all hosts work on; the first makes and names the folder.

    Files that are one for all are the first one's to write.

    Raises:
      InputError: `final` exists, or was begun from something else than `made_from`.
    """
    folder = building(final, resume=True)
    with folder if is_first_host() else contextlib.nullcontext(partial_folder(final)) as partial:
        if is_first_host():
            check_unfinished(partial, made_from)
        wait_for_all(f"{final} is begun")
        yield partial
        wait_for_all(f"{final} is whole")
    wait_for_all(f"{final} has its name")
