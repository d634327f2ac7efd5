"""The modelled time: each resource alone, what bounds the step, and what a run costs."""

import pytest

from tpo_jax.planning.estimate import (
    ACHIEVABLE_DCN,
    ACHIEVABLE_FLOPS,
    ACHIEVABLE_HBM,
    ACHIEVABLE_HOST,
    ACHIEVABLE_ICI,
    adamw_bytes,
    modelled_time,
    run_cost,
)
from tpo_jax.planning.flops import PARTS, Flops
from tpo_jax.planning.hardware import parse_slice
from tpo_jax.planning.traffic import FROM_HOST, TO_HOST, Traffic, Transfer

WHERE = parse_slice("v5p:4x4x4")
CHIP = WHERE.chip


def decoder(forward: float, recompute: float = 0.0) -> Flops:
    zeros = dict.fromkeys(PARTS, 0.0)
    return Flops(
        forward={**zeros, "decoder": forward},
        backward=zeros,
        recompute={**zeros, "decoder": recompute},
    )


def second_of(network: str, rate: float, *, kind: str = "x", blocking: bool = False) -> Transfer:
    """A transfer that takes a second."""
    return Transfer(kind=kind, network=network, bytes=rate, blocking=blocking)  # type: ignore[arg-type]


ICI = ACHIEVABLE_ICI * CHIP.ici_bytes_per_s
DCN = ACHIEVABLE_DCN * CHIP.dcn_bytes_per_s
HOST = ACHIEVABLE_HOST * CHIP.host_bytes_per_s
COMPUTE = ACHIEVABLE_FLOPS["decoder"] * CHIP.flops  # FLOPs of a second


def test_compute_and_utilisation():
    step = modelled_time(decoder(2 * COMPUTE, COMPUTE), Traffic(), WHERE)
    assert step.seconds == pytest.approx(3)
    assert step.bound_by == "compute"
    # What is computed twice is no model FLOPs.
    assert step.utilisation == pytest.approx(ACHIEVABLE_FLOPS["decoder"] * 2 / 3)


def test_attention_is_slower():
    zeros = dict.fromkeys(PARTS, 0.0)
    flops = Flops(forward={**zeros, "attention": CHIP.flops}, backward=zeros, recompute=zeros)
    step = modelled_time(flops, Traffic(), WHERE)
    assert step.seconds == pytest.approx(1 / ACHIEVABLE_FLOPS["attention"])


@pytest.mark.parametrize(("network", "rate"), [("ici", ICI), ("dcn", DCN), ("host", HOST)])
def test_the_slowest_resource_bounds(network, rate):
    kind = TO_HOST if network == "host" else "all-gather"
    traffic = Traffic(transfers=(second_of(network, 2 * rate, kind=kind),))
    step = modelled_time(decoder(COMPUTE), traffic, WHERE)
    assert step.seconds == pytest.approx(2)
    assert step.bound_by == network
    assert modelled_time(decoder(3 * COMPUTE), traffic, WHERE).bound_by == "compute"


def test_to_and_from_the_host_at_once():
    traffic = Traffic(
        transfers=(
            second_of("host", HOST, kind=TO_HOST),
            second_of("host", 2 * HOST, kind=FROM_HOST),
        )
    )
    assert modelled_time(decoder(0), traffic, WHERE).seconds == pytest.approx(2)


def test_a_blocking_transfer_adds_to_compute():
    traffic = Traffic(
        transfers=(second_of("ici", ICI, blocking=True), second_of("ici", ICI, kind="y"))
    )
    step = modelled_time(decoder(1.5 * COMPUTE), traffic, WHERE)
    assert step.seconds == pytest.approx(2.5)
    assert step.bound_by == "compute"
    waiting = modelled_time(decoder(0.5 * COMPUTE), Traffic(transfers=traffic.transfers[:1]), WHERE)
    assert waiting.seconds == pytest.approx(1.5)
    assert waiting.bound_by == "blocking"


def test_memory_and_the_update():
    rate = ACHIEVABLE_HBM * CHIP.hbm_bytes_per_s
    step = modelled_time(decoder(0), Traffic(), WHERE, hbm_bytes=2 * rate, update_bytes=rate)
    assert step.bound_by == "hbm"
    assert step.seconds == pytest.approx(3)
    # 7.6e9 parameters over 64 chips: 32 bytes each.
    assert adamw_bytes(7.6e9 / 64) == 3.8e9


def test_a_chip_of_two_devices_shares_its_links():
    """Traffic is that of a device."""
    ironwood = parse_slice("tpu7x:4x4x4")
    rate = ACHIEVABLE_ICI * ironwood.ici_bytes_per_s
    traffic = Traffic(transfers=(second_of("ici", rate),))
    assert modelled_time(decoder(0), traffic, ironwood).ici == pytest.approx(2)


def test_a_slice_of_one_chip_has_nothing_to_send():
    assert modelled_time(decoder(1), Traffic(), parse_slice("v5e:1x1")).ici == 0


def test_the_cost_of_a_run():
    step = modelled_time(decoder(36 * COMPUTE), Traffic(), WHERE)
    cost = run_cost(step, pairs=1000, pairs_per_step=64, chips=WHERE.chips)
    assert cost.steps == 16
    assert cost.pairs_per_hour == pytest.approx(6400)
    assert cost.hours == pytest.approx(0.16)
    assert cost.chip_hours == pytest.approx(0.16 * 64)
