"""What `verify` must notice: numbers, weights, inputs and settings that are not the case's."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.quick_compile import QUICK
from tpo_jax.cli.verify import case_batch
from tpo_jax.interop.golden_case import OUTPUTS, GoldenCase, read_case
from tpo_jax.interop.reader import CONFIG_FILE
from tpo_jax.interop.verify import (
    GRAD_TOLERANCE,
    LOGITS,
    UNSEEN_BIAS_NOTE,
    UNSEEN_TOLERANCE,
    Comparison,
    LayerError,
    compare,
    measure,
    measure_layers,
)
from tpo_jax.models.video_lmm import Params, VideoLMM, abstract_model
from tpo_jax.preference.logprobs import batch_layout

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.golden_maker import CaseSettings, write_case  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A case that passes, and our numbers for it."""

    case: GoldenCase
    numbers: dict[str, Any]
    grads: Params

    def outside(self, **changed: Any) -> set[str]:
        """Names that fail once the case, the numbers or the gradients are others."""
        parts: dict[str, Any] = {
            "case": self.case,
            "numbers": self.numbers,
            "grads": self.grads,
        } | changed
        return outside(compare(**parts))


def outside(rows: list[Comparison]) -> set[str]:
    return {row.name for row in rows if not row.passed}


def measured(folder: Path) -> Measured:
    case = read_case(folder)
    numbers, grads = measure(case, case_batch(case), compiler_options=QUICK)
    return Measured(case=case, numbers=numbers, grads=grads)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The tower is a CLIP, so that some tensors are stored and never run."""
    settings = CaseSettings(tower="clip", merge="unires", pool="average", image_size=56, seed=3)
    found = measured(write_case(tmp_path_factory.mktemp("made") / "case", settings))
    assert found.outside() == set()
    return found


def test_every_output_counts(made: Measured) -> None:
    tolerances = {row.name: row.tolerance for row in compare(**vars(made))}
    for name in OUTPUTS:
        for factor, expected in ((0.5, set()), (1.5, {name})):
            number = np.array(made.numbers[name], np.float64)
            number.reshape(-1)[-1] += factor * tolerances[name]
            assert made.outside(numbers=made.numbers | {name: number}) == expected, name


def test_every_gradient_counts(made: Measured) -> None:
    assert len(made.case.grads) > 60
    rows = {row.name: row for row in compare(**vars(made))}
    for name, grad in made.case.grads.items():
        step = GRAD_TOLERANCE * np.max(np.abs(grad))
        if rows[name].note == UNSEEN_BIAS_NOTE:
            weight = made.case.grads[name.replace("bias", "weight")]
            step = UNSEEN_TOLERANCE * np.max(np.abs(weight))
        for factor, expected in ((0.5, set()), (1.5, {name})):
            other = grad.copy()
            # Not where it is largest: the rule would move along.
            other.flat[np.argmin(np.abs(grad))] += factor * step
            assert made.outside(case=with_grads(made.case, {name: other})) == expected, name


def with_grads(case: GoldenCase, changed: dict[str, np.ndarray]) -> GoldenCase:
    return replace(case, grads={**case.grads, **changed})


def test_a_gradient_that_one_side_lacks(made: Measured) -> None:
    name = next(name for name in made.case.grads if name.endswith("norm.weight"))
    fewer = {key: grad for key, grad in made.case.grads.items() if key != name}
    assert made.outside(case=replace(made.case, grads=fewer)) == {name}
    extra = with_grads(made.case, {"model.rotary.weight": np.zeros(3)})
    assert made.outside(case=extra) == {"model.rotary.weight"}
    # Of the layer that is stored and never run there is none, and ours is zero.
    idle = [row for row in compare(**vars(made)) if "must be zero" in row.note]
    assert len(idle) == 16 + 2
    tower = jax.tree.map(np.array, made.grads["vision"])
    tower["layers"]["fc1"]["bias"][-1, 0] = 1e-20
    (failed,) = made.outside(grads={**made.grads, "vision": tower})
    assert failed.endswith("layers.2.mlp.fc1.bias")


def test_what_is_not_finite_fails(made: Measured) -> None:
    for value in (np.nan, np.inf):
        assert made.outside(numbers=made.numbers | {"loss": value}) == {"loss"}
        grads = {**made.grads, "projector": jax.tree.map(np.array, made.grads["projector"])}
        grads["projector"]["first"]["bias"][0] = value
        (failed,) = made.outside(grads=grads)
        assert failed.endswith("0.bias")


def test_the_tower_s_key_bias_must_be_rounding_on_our_side_too(made: Measured) -> None:
    tower = jax.tree.map(np.array, made.grads["vision"])
    name = next(row.name for row in compare(**vars(made)) if row.note == UNSEEN_BIAS_NOTE)
    tower["layers"]["k"]["bias"][0] = 1e-2
    grads = {**made.grads, "vision": tower}
    assert made.outside(grads=grads) == {name}
    # Also where both sides are wrong alike.
    same = with_grads(made.case, {name: np.full_like(made.case.grads[name], 1e-2)})
    assert made.outside(case=same, grads=grads) == {name}


# ------------------------------------------------------------------------------- mutations

Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("change", "first", "before"),
    [
        pytest.param(
            lambda c: c.update(rope_theta=1.05e6),
            *("chosen_logits", "visual_tokens"),
            id="rope theta",
        ),
        pytest.param(
            lambda c: c.update(mm_spatial_pool_mode="max"),
            *("visual_tokens", "vision_features"),
            id="pool mode",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda c: c["vision_config"].update(hidden_act="gelu"),
            *("vision_features", None),
            id="GELU",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_another_setting(
    change: Change, first: str, before: str | None, made: Measured, tmp_path: Path
) -> None:
    folder = tmp_path / "case"
    shutil.copytree(made.case.folder, folder)
    content = json.loads((folder / CONFIG_FILE).read_text())
    change(content)
    (folder / CONFIG_FILE).write_text(json.dumps(content))
    failed = measured(folder).outside()
    assert {first, "loss", "model.embed_tokens.weight"} <= failed
    assert before not in failed


def weight(params: Params) -> np.ndarray:
    """One entry of one weight, 1% larger."""
    changed = jax.tree.map(np.array, params)
    kernel = changed["language"]["layers"]["down"]["kernel"]
    kernel.flat[np.argmax(np.abs(kernel))] *= 1.01
    return changed


@pytest.mark.parametrize(
    ("change", "some", "none"),
    [
        pytest.param(
            lambda c: replace(c, policy=replace(c.policy, params=weight(c.policy.params))),
            {"chosen_logits", "loss"},
            {"reference_chosen_logp", "visual_tokens"},
            id="weight",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda c: replace(c, reference=replace(c.reference, params=weight(c.policy.params))),
            {"reference_chosen_logp", "dpo_loss"},
            {"chosen_logits", "sft_loss"},
            id="reference",
        ),
        pytest.param(
            lambda c: replace(c, frames_FHWC=c.frames_FHWC[::-1]),
            {"vision_features", "visual_tokens", "chosen_logits", "loss"},
            set(),
            id="frames",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda c: replace(c, beta=1.1 * c.beta),
            {"dpo_loss", "loss", "lm_head.weight"},
            {"sft_loss", "chosen_logits", "policy_chosen_logp"},
            id="beta",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda c: replace(c, sft_weight=1.01 * c.sft_weight),
            {"loss", "lm_head.weight"},
            {"dpo_loss", "sft_loss"},
            id="gamma",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda c: replace(c, rejected=c.rejected[::-1].copy()),
            {"rejected_logits", "policy_rejected_logp", "dpo_loss"},
            {"chosen_logits", "sft_loss"},
            id="rejected",
        ),
    ],
)
def test_other_contents(
    change: Callable[[GoldenCase], GoldenCase], some: set[str], none: set[str], made: Measured
) -> None:
    case = change(made.case)
    numbers, grads = measure(case, case_batch(case), compiler_options=QUICK)
    failed = made.outside(numbers=numbers, grads=grads)
    assert some <= failed
    assert not none & failed


# ----------------------------------------------------------------------- layer by layer


def by_name(rows: list[LayerError]) -> dict[str, LayerError]:
    return {row.name: row for row in rows}


def test_layer_errors_of_bf16(made: Measured) -> None:
    batch = case_batch(made.case)
    rows = measure_layers(made.case, batch, jnp.bfloat16, compiler_options=QUICK)
    assert [row.name for row in rows] == [
        *("patch embedding", "tower layer 0", "tower layer 1", "projector", "visual tokens"),
        *("embeddings", "decoder layer 0", "decoder layer 1", "final norm", LOGITS),
        *OUTPUTS[4:],
    ]
    errors = by_name(rows)
    # Eight bits: half a unit in the last place is 2**-9, and nothing gets better on the way.
    assert 2**-10 < errors["patch embedding"].rms_relative < 2**-7
    assert errors["patch embedding"].rms_relative < errors["tower layer 1"].rms_relative
    assert errors["tower layer 1"].rms_relative < errors[LOGITS].rms_relative < 0.05
    # Each line is a place of its own.
    places = [row for row in rows if row.name not in OUTPUTS]
    assert len({row.rms_relative for row in places}) == len(places)
    for row in rows:
        assert row.max_abs > 0
        assert row.rms_relative < 0.2


def test_layer_errors_of_fp32_are_none(made: Measured) -> None:
    rows = measure_layers(made.case, case_batch(made.case), jnp.float32, compiler_options=QUICK)
    assert all(row.max_abs == 0 == row.rms_relative for row in rows)


def test_the_states_are_those_of_the_forward_pass(made: Measured) -> None:
    """Each state leads to the next by one layer; the last ones are what the model hands on."""
    graph, _ = abstract_model(made.case.config)
    batch = case_batch(made.case)

    @partial(jax.jit, compiler_options=QUICK)
    def run(params: Params, batch: Any) -> Any:
        model: VideoLMM = nnx.merge(graph, params)
        frames, layout = batch["frames"][0], batch_layout(batch)
        tower = model.vision.states(frames)
        x = model.embed(
            batch["tokens"], model.encode_videos(batch["frames"]), batch["visual_index"]
        )
        decoder = model.language.states(x, batch["positions"], layout)
        tower_layers, decoder_layers = (
            nnx.split(model.vision.layers),
            nnx.split(model.language.layers),
        )

        def layer(split: Any, number: int) -> Any:
            return nnx.merge(split[0], jax.tree.map(lambda leaf: leaf[number], split[1]))

        steps = [layer(tower_layers, n)(tower[n]) - tower[n + 1] for n in range(len(tower) - 1)]
        steps += [
            layer(decoder_layers, n)(before, batch["positions"], layout, None, 0)[0] - after
            for n, (before, after) in enumerate(zip([x, *decoder], decoder, strict=False))
        ]
        ends = [
            tower[-1][:, 1:] - model.vision(frames),
            model.language.norm(decoder[-1]) - model.language(x, batch["positions"], layout)[0],
        ]
        return tower.shape[0], decoder.shape[0], steps, ends

    tower_states, decoder_states, steps, ends = jax.device_get(run(made.case.policy.params, batch))
    assert (tower_states, decoder_states) == (2 + 1, 2)
    assert len(steps) == 4
    for difference in (*steps, *ends):
        assert np.max(np.abs(difference)) < 1e-5
