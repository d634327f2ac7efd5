"""What every test runs under: JAX on the CPU with eight virtual devices."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.quick_compile import QUICK

# JAX and XLA read these when they start; a JAX that is already imported would ignore them.
assert "jax" not in sys.modules, "something imported jax before tests/conftest.py"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ).strip()
# XLA's thread pool has as many threads as the machine has cores. With fewer threads than devices a
# loop of sharded steps can wait for a device that never gets one, until XLA aborts the process
# after 40 s. This raises the number. (Switching off jax_cpu_enable_async_dispatch does not help.)
os.environ.setdefault("NPROC", "32")

# Most of the time goes into compiling, and many tests compile the same step. The workers of a run
# inherit the folder of the process that started them, so what one compiled the others read.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="tpo_jax_compiled_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# A busy machine is slow, which is no fault. `make test` draws fewer examples than `make test-full`.
settings.register_profile("full", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=40)


from tests.bucket import bucket  # noqa: E402, F401 -- a fixture


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("quick" if config.option.markexpr == "not slow" else "full")


@pytest.fixture(scope="module")
def quick_training() -> Iterator[None]:
    """XLA makes less of the training step, for modules in which nothing hangs on that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tpo_jax.training.loop.tpu_options", lambda options, mesh: QUICK)
        yield
