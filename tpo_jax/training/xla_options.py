"""Options of the TPU compiler, as a config names them: how it schedules, not what is computed."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
from jax.sharding import Mesh

from tpo_jax.errors import InputError

REFUSED = re.compile("No such compile option|Failed to parse '.*' into flag|While setting option")


def tpu_options(options: Sequence[str], mesh: Mesh) -> dict[str, str]:
    """`("xla_tpu_scoped_vmem_limit_kib=65536",)` by name; none where the mesh is of no TPUs.

    Raises:
      InputError: one is not written as NAME=VALUE.
    """
    found = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not (name.startswith("xla_") and equals and value):
            raise InputError(
                f"config.train.xla_options: {option!r}: write an option as xla_NAME=VALUE"
            )
        found[name] = value
    return found if mesh.devices.flat[0].platform == "tpu" else {}


@contextmanager
def options_refused(options: Sequence[str]) -> Iterator[None]:
    """An option that the compiler does not know, or not with this value, as the user's mistake.

    Raises:
      InputError: inside, the compiler refused an option.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if options and REFUSED.search(str(error)):
            raise InputError(
                f"config.train.xla_options={','.join(options)}: {str(error).splitlines()[0]}"
            ) from error
        raise
