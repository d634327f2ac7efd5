"""Tokens a second and chip, and the share of the peak, of a step."""

from dataclasses import dataclass

import pytest

from tests.tiny import random_batch, tiny_model
from tpo_jax.planning.flops import RowDims, row_flops
from tpo_jax.planning.hardware import CHIPS
from tpo_jax.planning.utilisation import DEVICE_KINDS, Utilisation

TRAINED = frozenset({"projector", "newline", "language"})


@dataclass(frozen=True)
class Device:
    device_kind: str


def made(kind: str, count: int) -> Utilisation:
    return Utilisation(config=tiny_model()[0], trained=TRAINED, devices=[Device(kind)] * count)


def test_a_batch_has_the_flops_of_its_rows() -> None:
    config, _, _ = tiny_model()
    batch = random_batch(config, 0, rows=3, frames=2, prompt_targets=3)
    answer = batch["answers"].shape[2]
    row = RowDims(
        prompt=batch["tokens"].shape[1] - 2 * answer, answer=answer, frames=2, prompt_targets=3
    )
    expected = 3 * row_flops(config, row, trained=TRAINED).model_flops
    assert made("cpu", 8).batch_flops(batch) == pytest.approx(expected)


def test_a_cpu_has_no_known_peak() -> None:
    batch = random_batch(tiny_model()[0], 0, rows=2)
    assert made("cpu", 8)(batch, {"tokens": 1600.0}, 2.0) == {"tokens_per_second_per_chip": 100.0}


def test_two_devices_of_a_chip_are_one_chip() -> None:
    batch = random_batch(tiny_model()[0], 0, rows=2)
    flops = made("cpu", 1).batch_flops(batch)
    found = made("TPU7x", 8)(batch, {"tokens": 1600.0}, 2.0)
    assert found["tokens_per_second_per_chip"] == pytest.approx(200.0)
    assert found["mfu"] == pytest.approx(flops / 2.0 / 4 / CHIPS["tpu7x"].flops)
    found = made("TPU v5 lite", 8)(batch, {"tokens": 1600.0}, 2.0)
    assert found["mfu"] == pytest.approx(flops / 2.0 / 8 / 197e12)


def test_every_chip_has_a_kind() -> None:
    assert set(DEVICE_KINDS.values()) == set(CHIPS)
