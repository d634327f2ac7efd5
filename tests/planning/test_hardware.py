"""Slices by the names people write, and what a chip can send inside one."""

import pytest

from tpo_jax.errors import InputError
from tpo_jax.planning.hardware import CHIPS, parse_slice


@pytest.mark.parametrize(
    ("text", "topology", "slices", "chips", "devices"),
    [
        ("v5p:4x4x4", "v5p:4x4x4", 1, 64, 64),
        ("v5p-128", "v5p:4x4x4", 1, 64, 64),  # counts cores
        ("v5p-8", "v5p:2x2x1", 1, 4, 4),
        ("v4-32", "v4:2x2x4", 1, 16, 16),
        ("v5litepod-16", "v5e:4x4", 1, 16, 16),  # counts chips
        ("v5e-16", "v5e:4x4", 1, 16, 16),
        ("v5litepod:8x8", "v5e:8x8", 1, 64, 64),
        ("v6e-64", "v6e:8x8", 1, 64, 64),
        ("V6E-8", "v6e:2x4", 1, 8, 8),
        ("2xv5p-128", "v5p:4x4x4", 2, 128, 128),
        ("4xv5e:16x16", "v5e:16x16", 4, 1024, 1024),
        ("tpu7x:2x2x2", "tpu7x:2x2x2", 1, 8, 16),  # a chip is two devices
        ("v5p-12288", "v5p:16x16x24", 1, 6144, 6144),
    ],
)
def test_names(text, topology, slices, chips, devices):
    parsed = parse_slice(text)
    assert parsed.topology_name == topology
    assert (parsed.slices, parsed.chips, parsed.devices) == (slices, chips, devices)
    assert parse_slice(parsed.name) == parsed


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("v5p-127", "v5p-128"),  # no half chips
        ("v6e-65", "v6e-64"),  # no such shape
        ("v5q-128", "v5p-128"),
        ("v5p", "v5p"),
        ("v5p:0x4x4", "v5p"),
        ("0xv5p-128", "v5p-128"),
        ("", "v5p-128"),
    ],
)
def test_a_bad_name_is_refused_with_the_nearest_and_examples(text, hint):
    with pytest.raises(InputError) as caught:
        parse_slice(text)
    said = str(caught.value)
    assert said.startswith(text) and hint in said and "v5litepod-16" in said and "\n" not in said


def test_a_slice_of_the_wrong_dimensions_is_refused():
    with pytest.raises(InputError, match="v5p:4x4 *: a v5p slice has 3 dimensions"):
        parse_slice("v5p:4x4")


def test_options_of_the_topology():
    assert parse_slice("v5p-128").topology_options == {}
    assert parse_slice("2xv5p-128").topology_options == {"num_slices": 2}
    assert parse_slice("v4-32").topology_options == {"chip_config_name": "megacore"}


def test_links_of_a_slice():
    """A ring uses both links of a dimension, a line one, a single chip none."""
    v5p, v5e = CHIPS["v5p"].ici_bytes_per_s, CHIPS["v5e"].ici_bytes_per_s
    assert parse_slice("v5p:4x4x4").ici_bytes_per_s == v5p
    assert parse_slice("v5p:2x2x4").ici_bytes_per_s == pytest.approx(v5p * 4 / 6)
    assert parse_slice("v5p:2x2x1").ici_bytes_per_s == pytest.approx(v5p * 2 / 6)
    assert parse_slice("v5e:16x16").ici_bytes_per_s == v5e
    assert parse_slice("v5e:4x4").ici_bytes_per_s == v5e / 2
    assert parse_slice("v5e:1x1").ici_bytes_per_s == 0


def test_memory_is_that_of_a_device():
    assert parse_slice("tpu7x:2x2x2").hbm_bytes_per_device == CHIPS["tpu7x"].hbm_bytes // 2
    for chip in CHIPS.values():
        assert 15 * 2**30 < chip.hbm_bytes // chip.devices < 96 * 2**30
