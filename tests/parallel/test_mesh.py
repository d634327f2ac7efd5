"""The mesh over several slices. Devices are stand-ins: only TPUs have slices."""

from dataclasses import dataclass

import numpy as np
import pytest

from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import MeshConfig, count_slices, fill_mesh, lay_mesh


@dataclass(frozen=True)
class Device:
    """What a mesh is laid by."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "stand-in"
    core_on_chip: int = 0
    process_index: int = 0


def two_slices(platform: str = "tpu") -> list[Device]:
    """Two slices of 2 x 4 chips."""
    places = [(x, y, 0) for y in range(4) for x in range(2)]
    return [
        Device(number + 8 * index, index, place, platform)
        for index in range(2)
        for number, place in enumerate(places)
    ]


@pytest.mark.parametrize("config", [MeshConfig(), MeshConfig(data=4, context=2)])
def test_only_data_goes_between_slices(config: MeshConfig) -> None:
    devices = two_slices()
    assert count_slices(devices) == 2
    filled = fill_mesh(config, 16, 2, "16 devices there are")
    assert filled.data == max(config.data, 2)
    laid = lay_mesh(filled, devices, 2).devices
    assert {device.id for device in laid.flat} == set(range(16))
    slices = np.vectorize(lambda device: device.slice_index)(laid)
    half = filled.data // 2
    assert (slices[:half] == 0).all() and (slices[half:] == 1).all()


def test_an_axis_may_be_part_of_a_slices_own() -> None:
    devices = two_slices()[:8]
    laid = lay_mesh(MeshConfig(fsdp=1, context=8), devices, count_slices(devices)).devices
    assert laid.shape == (1, 1, 8, 1)


def test_devices_that_are_no_tpus_are_one_slice() -> None:
    assert count_slices(two_slices("gpu")) == 1


def test_slices_that_data_does_not_divide_over() -> None:
    with pytest.raises(InputError, match="data=3 does not divide over the 2 slices"):
        fill_mesh(MeshConfig(data=3, fsdp=4), 12, 2, "12 devices there are")
