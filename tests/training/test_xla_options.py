"""Options of the TPU compiler: how they are written, when they hold, how a wrong one is told."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import MeshConfig, make_mesh
from tpo_jax.training.xla_options import options_refused, tpu_options

OPTIONS = ("xla_tpu_scoped_vmem_limit_kib=65536", "xla_tpu_rwb_fusion=false")


def test_they_hold_on_tpus_only() -> None:
    tpus = SimpleNamespace(devices=np.array([SimpleNamespace(platform="tpu")]))
    named = {"xla_tpu_scoped_vmem_limit_kib": "65536", "xla_tpu_rwb_fusion": "false"}
    assert tpu_options(OPTIONS, tpus) == named  # type: ignore[arg-type]
    assert tpu_options(OPTIONS, make_mesh(MeshConfig())) == {}


@pytest.mark.parametrize("option", ["xla_a", "xla_a=", "vmem=3", "--xla_a=3"])
def test_one_that_is_not_written_so(option: str) -> None:
    with pytest.raises(InputError, match="write an option as xla_NAME=VALUE"):
        tpu_options((option,), make_mesh(MeshConfig()))


@pytest.mark.parametrize("given", [{"xla_no_such": "1"}, {"xla_backend_optimization_level": "x"}])
def test_one_that_the_compiler_refuses(given: dict[str, str]) -> None:
    options = tuple("=".join(item) for item in given.items())
    with pytest.raises(InputError, match=f"xla_options={options[0]}: "), options_refused(options):
        jax.jit(lambda x: x + 1, compiler_options=given)(1)


def test_other_errors_pass() -> None:
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
    with pytest.raises(jax.errors.JaxRuntimeError), options_refused(OPTIONS):
        raise error
