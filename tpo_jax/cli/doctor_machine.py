"""Checks of `tpo doctor` that need no model: versions, devices, mesh, disk, clock."""

import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from etils import epath

from data_pipelines.artefacts import in_bucket
from tpo_jax.cli.doctor_findings import FAIL, OK, WARN, Finding, Request

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "av")
PYTHON = (3, 11)
# Devices of a TPU machine, by generation; one is enough. (Others may have the second.)
TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")
LIBTPU_LOCK = Path("/tmp/libtpu_lockfile")
# Seconds between the clock of this machine and that of its file system. Buckets refuse requests
# that are a quarter of an hour off.
CLOCK_WARN, CLOCK_FAIL = 3.0, 300.0
PROBE_BYTES = b"tpo doctor wrote this and may be deleted\n"


# -------------------------------------------------------------------------------------- software


def check_versions(request: Request) -> Finding:
    """Python and the packages that decide what is computed, against what setup.py asks for."""
    if sys.version_info < PYTHON:
        return Finding(
            status=FAIL,
            found=f"Python {sys.version.split()[0]}",
            mend="use Python 3.11 or newer, in a new virtual environment",
        )
    found, missing = [f"python {sys.version.split()[0]}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        lacking = f"{', '.join(missing)} not installed"
        return Finding(status=FAIL, found=lacking, mend=f"pip install {' '.join(missing)}")
    others = outside_ranges()
    if others:
        return Finding(
            status=WARN,
            found="; ".join(others),
            mend="this version was not tested with them: pip install . puts the right ones there",
        )
    return Finding(status=OK, found=", ".join(found))


def outside_ranges() -> list[str]:
    """A sentence for each installed package that setup.py's ranges do not hold."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(text) for text in metadata.requires("tpo_jax") or []]
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return []
    said = []
    for requirement in asked:
        if requirement.name not in PACKAGES or requirement.marker is not None:
            continue
        version = metadata.version(requirement.name)
        if not requirement.specifier.contains(version, prereleases=True):
            said.append(f"{requirement.name} {version}, not {requirement.specifier}")
    return said


# --------------------------------------------------------------------------------------- devices


def check_devices(request: Request) -> Finding:
    """What JAX computes on."""
    import jax

    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    found = f"{len(devices)} x {', '.join(kinds)} ({devices[0].platform})"
    if jax.process_count() > 1 or len(jax.local_devices()) != len(devices):
        return Finding(
            status=FAIL,
            found=f"{found}, {len(jax.local_devices())} of them on this host",
            mend="use a slice whose chips are on one host: training over several is not there yet",
        )
    if devices[0].platform == "cpu":
        mend = "enough for the demo; a 7B model wants a TPU or GPU: pip install .[tpu] or .[cuda]"
        return Finding(status=WARN, found=found, mend=mend)
    return Finding(status=OK, found=found)


def check_libtpu(request: Request) -> Finding:
    """The TPU's driver: wanted where there is a TPU, harmless and useful where there is none."""
    import jax

    here = [path for path in TPU_DEVICES if os.path.exists(path)]
    platform = jax.default_backend()
    if find_spec("libtpu") is None:
        if here and platform == "cpu":
            mend = "pip install .[tpu]"
            return Finding(status=FAIL, found=f"{here[0]} is there, libtpu is not", mend=mend)
        return Finding(
            status=OK, found="not installed, no TPU here; only `tpo plan` wants it (.[plan])"
        )
    version = metadata.version("libtpu")
    if here and platform == "cpu":
        asked = os.environ.get("JAX_PLATFORMS")
        mend = "unset JAX_PLATFORMS, or set it to tpu,cpu" if asked else "pip install .[tpu] again"
        found = f"libtpu {version}; {here[0]} is there, but JAX runs on {platform}"
        return Finding(status=FAIL, found=found, mend=mend)
    if not here and platform != "tpu" and not os.environ.get("JAX_PLATFORMS"):
        return Finding(
            status=WARN,
            found=f"libtpu {version}, no TPU here: JAX looks for one each time it starts",
            mend="set JAX_PLATFORMS=cpu (or cuda); `tpo plan` works all the same",
        )
    # JAX does not load libtpu here: if there is a lock, it is another process's.
    if not here and platform != "tpu" and LIBTPU_LOCK.exists():
        return Finding(
            status=WARN,
            found=f"libtpu {version}, no TPU here; {LIBTPU_LOCK} was left behind",
            mend=f"delete {LIBTPU_LOCK} if no other process uses libtpu",
        )
    what = "on its TPU" if platform == "tpu" else "no TPU here: it serves `tpo plan`"
    return Finding(status=OK, found=f"libtpu {version}, {what}")


def check_mesh(request: Request) -> Finding:
    """The default mesh over all devices, and a sum that needs each of them."""
    import jax
    import numpy as np

    from tpo_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh

    mesh = make_mesh(MeshConfig())
    rows = mesh.size
    placed = jax.device_put(np.arange(rows, dtype=np.float32), batch_sharding(mesh))
    total = float(jax.jit(lambda x: x.sum())(placed))
    shape = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    if total != rows * (rows - 1) / 2:
        return Finding(
            status=FAIL,
            found=f"{shape}: a sum over {rows} devices gave {total}, not {rows * (rows - 1) / 2}",
            mend="a device computes wrongly: use another slice, and report this one",
        )
    return Finding(status=OK, found=f"{shape}; a sum over all {rows} devices is right")


# ------------------------------------------------------------------------------- disk and clock


def check_write_access(request: Request) -> Finding:
    """A file is written where runs would be, read back and deleted."""
    try:
        with probe_file(request.run_dir) as probe:
            came_back = probe.read_bytes()
    except OSError as error:
        return Finding(
            status=FAIL,
            found=f"{request.run_dir}: cannot be written ({error.strerror or error})",
            mend="give a folder that you may write: --run-dir=FOLDER, and config.run_dir for runs",
        )
    if came_back != PROBE_BYTES:
        return Finding(
            status=FAIL,
            found=f"{request.run_dir}: a file of {len(PROBE_BYTES)} bytes came back as "
            f"{len(came_back)} others",
            mend="use another disk: this one does not keep what is written",
        )
    if in_bucket(request.run_dir):
        return Finding(
            status=WARN,
            found=f"{request.run_dir}: can be written, but config.run_dir must be a local folder",
            mend="give it as config.train_dir, which keeps checkpoints; models and videos may be "
            "in buckets too",
        )
    return Finding(status=OK, found=f"{request.run_dir}: can be written")


def check_clock(request: Request) -> Finding:
    """This machine's clock beside the time that its file system puts on a new file."""
    with probe_file(request.run_dir) as probe:
        skew = file_time(probe) - time.time()
    found = f"files of {request.run_dir} are dated {skew:+.1f} s from this machine's clock"
    if abs(skew) <= CLOCK_WARN:
        return Finding(status=OK, found=found)
    return Finding(
        status=FAIL if abs(skew) > CLOCK_FAIL else WARN,
        found=found,
        mend="set the clock by NTP: timedatectl set-ntp true, or chronyc makestep",
    )


def file_time(path: Any) -> float:
    """When a file was last written, by its file system, seconds since 1970."""
    return os.stat(path).st_mtime if isinstance(path, Path) else float(path.stat().mtime)


@contextmanager
def probe_file(run_dir: str) -> Iterator[Any]:
    """A small new file in a folder (or the nearest one above it that exists), deleted afterwards.

    Raises:
      OSError: it cannot be written.
    """
    folder: Any = epath.Path(run_dir) if in_bucket(run_dir) else existing_folder(run_dir)
    probe = folder / f".tpo_doctor_{uuid.uuid4().hex}"
    try:
        probe.write_bytes(PROBE_BYTES)
        yield probe
    finally:
        probe.unlink(missing_ok=True)


def existing_folder(run_dir: str) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = Path(run_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
