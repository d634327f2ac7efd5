"""Cases that plain PyTorch made, of settings that the shipped ones do not have, pass `verify`."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.golden import FAMILIES, golden_folder
from tests.quick_compile import QUICK
from tpo_jax.cli.verify import case_batch
from tpo_jax.interop.golden_case import (
    GRADS_FILE,
    INPUTS_FILE,
    OUTPUTS_FILE,
    REFERENCE_FILE,
    read_case,
)
from tpo_jax.interop.reader import CONFIG_FILE, WEIGHTS_FILE
from tpo_jax.interop.verify import UNSEEN_BIAS_NOTE, compare, measure

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.golden_maker import CaseSettings, oracle_numbers, write_case  # noqa: E402

SPATIAL = ("grid", "frame", "one_token", "no_token")

MADE = [
    CaseSettings(newline="grid", pool="bilinear"),
    CaseSettings(newline="frame", pool="average", kv_heads=4, vocab_rows=128, rope_theta=1e4),
    CaseSettings(newline="one_token", pool="max", heads=6, kv_heads=2, tied=True),
    CaseSettings(newline="no_token", pool="bilinear", image_size=56, kv_heads=1, vocab_rows=97),
    CaseSettings(tower="clip", merge="unires", pool="average", heads=6, rope_theta=1e9, beta=0.3),
    CaseSettings(tower="clip", merge="unires", pool="max", image_size=84, stride=3, tied=True),
    CaseSettings(tower="clip", pool="bilinear", head_width=16, gamma=0.0),
    # More frames than the tower takes at a time.
    CaseSettings(merge="unires", pool="average", image_size=56, frames=17, beta=0.05, gamma=0.5),
]

# Each newline but those of the shipped cases, each pool, both towers, and frames in chunks.
QUICK_MADE = (2, 3, 5, 7)

EVERY = [
    CaseSettings(
        tower=tower,
        merge="unires" if newline == "unires" else "spatial_unpad",
        newline="grid" if newline == "unires" else newline,
        pool=pool,
        image_size=size,
        # Walks through the others, so that each meets each.
        heads=(4, 6, 4, 2)[number % 4],
        kv_heads=(2, 2, 1, 2)[number % 4],
        tied=number % 3 == 0,
        vocab_rows=(61, 128, 97)[number % 3],
        rope_theta=(1e6, 1e4, 1e9)[number % 3],
        seed=number,
    )
    for number, (tower, pool, newline, size) in enumerate(
        itertools.product(
            ("siglip", "clip"), ("bilinear", "average", "max"), (*SPATIAL, "unires"), (75, 56)
        )
    )
    if (pool, newline) != ("bilinear", "unires")  # LongVA's code has no such mode
]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_oracle_gives_the_shipped_numbers(family: str) -> None:
    """What made the shipped cases was the authors' code: the maker is right if it agrees."""
    folder = golden_folder(family)
    outputs, grads = oracle_numbers(
        json.loads((folder / CONFIG_FILE).read_text()),
        load_file(folder / WEIGHTS_FILE),
        load_file(folder / REFERENCE_FILE),
        np.load(folder / INPUTS_FILE),
    )
    expected = np.load(folder / OUTPUTS_FILE)
    for name, found in outputs.items():
        assert found.shape == expected[name].shape
        assert np.max(np.abs(found - expected[name])) <= 3e-5, name
    expected_grads = load_file(folder / GRADS_FILE)
    assert grads.keys() == expected_grads.keys()
    for name, theirs in expected_grads.items():
        tower_key_bias = "vision_tower" in name and name.endswith("k_proj.bias")
        tolerance = 1e-6 if tower_key_bias else 1e-5 * np.max(np.abs(theirs))
        assert np.max(np.abs(grads[name] - theirs)) <= tolerance, name


def check(settings: CaseSettings, folder: Path) -> None:
    """Everything is inside its tolerance, and is not so because it is nothing."""
    case = read_case(write_case(folder, settings))
    numbers, grads = measure(case, case_batch(case), compiler_options=QUICK)
    rows = compare(case, numbers, grads)
    assert [row for row in rows if not row.passed] == []
    idle = {row.name for row in rows if "must be zero" in row.note}
    seen = {row.name for row in rows} - idle
    assert seen >= case.grads.keys() | case.outputs.keys()
    newline_is_used = settings.merge == "spatial_unpad" and settings.newline != "no_token"
    assert any("newline" in name for name in seen) == newline_is_used
    assert any("lm_head" in name for name in seen) != settings.tied
    for row in rows:
        if row.of == "relative":
            assert np.max(np.abs(case.grads[row.name])) > 1e-5, row.name
    assert sum(row.note == UNSEEN_BIAS_NOTE for row in rows) == case.config.vision.layers_used


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(one, id=str(one), marks=[] if number in QUICK_MADE else pytest.mark.slow)
        for number, one in enumerate(MADE)
    ],
)
def test_a_made_case(settings: CaseSettings, tmp_path: Path) -> None:
    check(settings, tmp_path / "case")


@pytest.mark.slow
@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_every_combination(settings: CaseSettings, tmp_path: Path) -> None:
    check(settings, tmp_path / "case")
