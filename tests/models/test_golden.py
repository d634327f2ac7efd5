"""Our model, row layout and loss give the numbers that the authors' classes gave."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from data_pipelines.batches import fitting_shape, make_row, stack
from data_pipelines.prompts import Prompt
from tests.golden import FAMILIES, golden_folder
from tpo_jax.attention import row_layout
from tpo_jax.interop import keys
from tpo_jax.interop.reader import read_checkpoint
from tpo_jax.models.video_lmm import VideoLMM, VideoLMMConfig, abstract_model
from tpo_jax.preference.logprobs import answer_logprobs, predicting_states
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.optimizer import split_frozen

VIDEO_PLACE = -200
Arrays = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What was recorded, and ours."""

    inputs: Arrays
    expected: Arrays
    expected_grads: Arrays
    ours: Arrays
    grads: Arrays


def prompt_of(ids: np.ndarray, visual_tokens: int) -> Prompt:
    place = int(np.flatnonzero(ids == VIDEO_PLACE)[0])
    visual = np.arange(visual_tokens, dtype=np.int32)
    before, after = ids[:place].astype(np.int32), ids[place + 1 :].astype(np.int32)
    none = np.full_like(ids, -1, dtype=np.int32)
    return Prompt(
        tokens=np.concatenate([before, np.zeros_like(visual), after]),
        visual_index=np.concatenate([none[:place], visual, none[place + 1 :]]),
    )


def pair_batch(inputs: Arrays, config: VideoLMMConfig) -> Arrays:
    prompt = prompt_of(inputs["prompt"], config.tokens_per_video(len(inputs["frames"])))
    answers = [inputs["chosen"].tolist(), inputs["rejected"].tolist()]
    shape = fitting_shape([len(prompt.tokens)], [len(answer) for answer in answers])
    return stack([make_row(prompt, answers, shape)]) | {"frames": inputs["frames"][None]}


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = golden_folder(request.param)
    inputs, expected = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    reference_folder: Path = tmp_path_factory.mktemp("reference")
    shutil.copy(folder / "config.json", reference_folder)
    shutil.copy(folder / "reference.safetensors", reference_folder / "model.safetensors")
    policy, reference = read_checkpoint(folder), read_checkpoint(reference_folder)
    batch = pair_batch(inputs, policy.config)
    graph, _ = abstract_model(policy.config)
    loss = TPOLoss(beta=float(inputs["beta"]), sft_weight=float(inputs["gamma"]))

    @jax.jit
    def forward(params: Arrays, batch: Arrays) -> Arrays:
        model: VideoLMM = nnx.merge(graph, params)
        visual_BMD = model.encode_videos(batch["frames"])
        row = batch["tokens"], visual_BMD, batch["visual_index"], batch["positions"]
        hidden_BTD, _ = model(*row, row_layout(batch["branch"]))
        states_BKAD = predicting_states(hidden_BTD, *batch["answers"].shape[1:])
        return {
            "vision_features": model.vision(batch["frames"][0]),
            "visual_tokens": visual_BMD[0],
            "logits": model.logits(states_BKAD)[0],
        }

    @jax.jit
    def step(trained: Arrays, frozen: Arrays, batch: Arrays, reference: jax.Array) -> Any:
        def value(trained: Arrays) -> tuple[jax.Array, Arrays]:
            logprobs = answer_logprobs(nnx.merge(graph, {**trained, **frozen}), batch)
            total, metrics = loss(logprobs, batch["answer_mask"], reference)
            return total, metrics | {"logprobs": logprobs}

        return jax.grad(value, has_aux=True)(trained)

    # The same step says the reference's log-probs: what it compares them with does not matter.
    nothing = jnp.zeros(batch["answer_mask"].shape)
    _, seen = step(*split_frozen(reference.params, frozen=()), batch, nothing)
    grads, metrics = step(*split_frozen(policy.params, frozen=()), batch, seen["logprobs"])
    ours = forward(policy.params, batch) | {"reference_logprobs": seen["logprobs"]} | metrics
    return Case(
        inputs=dict(inputs),
        expected=dict(expected),
        expected_grads=load_file(folder / "grads.safetensors"),
        ours=jax.device_get(ours),
        grads=jax.device_get(grads),
    )


def assert_near(ours: Any, expected: Any, tolerance: float) -> None:
    assert np.shape(ours) == np.shape(expected)
    assert np.max(np.abs(ours - expected)) <= tolerance


@pytest.mark.parametrize("name", ["vision_features", "visual_tokens"])
def test_the_video_becomes_the_same_tokens(case: Case, name: str) -> None:
    assert_near(case.ours[name], case.expected[name], 2e-4)


def test_both_answers_get_the_same_logits(case: Case) -> None:
    for number, answer in enumerate(("chosen", "rejected")):
        expected = case.expected[f"{answer}_logits"]
        assert len(expected) == len(case.inputs[answer])
        assert_near(case.ours["logits"][number, : len(expected)], expected, 2e-4)


def test_log_probs_sum_over_exactly_the_answer_ids(case: Case) -> None:
    for model, logprobs in (("policy", "logprobs"), ("reference", "reference_logprobs")):
        sums_K = case.ours[logprobs][0].sum(axis=-1)
        assert_near(sums_K[:1], case.expected[f"{model}_chosen_logp"], 1e-3)
        assert_near(sums_K[1:], case.expected[f"{model}_rejected_logp"], 1e-3)


def test_the_losses_are_the_same(case: Case) -> None:
    for name in ("dpo_loss", "sft_loss", "loss"):
        assert_near(case.ours[name], case.expected[name], 1e-5)


def test_gradients_are_the_same(case: Case) -> None:
    expected = dict(case.expected_grads)
    for path, grad in keys.flat_paths(case.grads):
        for layer, (name, shape) in enumerate(keys.their_tensors(path, grad.shape)):
            ours = keys.to_theirs(path, grad[layer] if keys.is_stacked(path) else grad)
            if name not in expected:  # stored, never run
                assert not np.any(ours), name
                continue
            theirs = expected.pop(name)
            tolerance = 1e-3 * np.max(np.abs(theirs))
            if path == "vision/layers/k/bias":
                # Without rope softmax does not see the bias of the keys: its gradient is zero, and
                # what stands there, on both sides, is rounding.
                tolerance = 1e-6
            assert ours.shape == shape
            assert np.max(np.abs(ours - theirs)) <= tolerance, name
    assert not expected
    assert jnp.any(case.grads["vision"]["patch"]["kernel"])
