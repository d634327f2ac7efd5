"""Our numbers for a golden case, on the path that training takes, beside the recorded ones.

`measure` runs the compiled training step on one pair row and `compare` says how far each number is
from the case. `measure_layers` compares a short format with fp32, layer by layer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tpo_jax.attention import PAD_BRANCH
from tpo_jax.errors import InputError
from tpo_jax.interop import keys
from tpo_jax.interop.golden_case import ARRAYS, LOGPROBS, LOSSES, GoldenCase
from tpo_jax.models.video_lmm import Params, VideoLMM, abstract_model
from tpo_jax.preference.logprobs import batch_layout, predicting_states, row_logprobs, row_mask
from tpo_jax.preference.losses import SFT, TPOLoss
from tpo_jax.preference.reference import make_reference_step
from tpo_jax.training.optimizer import split_frozen
from tpo_jax.training.step import cast, init_state, make_train_step

ARRAY_TOLERANCE = 2e-4
LOGPROB_TOLERANCE = 1e-3
LOSS_TOLERANCE = 1e-5
GRAD_TOLERANCE = 1e-3

# The tower has no rope, so softmax does not see the bias of its keys: adding one vector to all keys
# adds one number to all scores of a query. The gradient is zero, and what two implementations find
# is rounding, which agrees with nothing. Both must be this small, as a part of the largest entry
# that the same layer's key weight has in the recorded gradient (seen: at most 1.1e-6 of it).
UNSEEN_BIAS = "vision/layers/k/bias"
SEEN_BESIDE_IT = "vision/layers/k/kernel"
UNSEEN_TOLERANCE = 1e-5
UNSEEN_BIAS_NOTE = "zero but for rounding: the larger of both sides"

# Relative RMS error of bf16 logits: `docs/parity.md` says what was measured.
BF16_LOGITS_BOUND = 0.05

# In the order in which they are computed; "{}" stands for the number of a layer.
LOGITS = "logits"
VIDEO_STATES = ("patch embedding", "tower layer {}", "projector", "visual tokens")
ROW_STATES = ("embeddings", "decoder layer {}", "final norm")

Numbers = dict[str, Any]
# Arrays of the host or of a device.
Row = Mapping[str, Any]
Options = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One array of ours against the recorded one.

    Attributes:
      name: of the output, or the tensor whose gradient it is.
      max_abs: largest absolute difference; NaN where one side has no such array.
      relative: `max_abs` as a part of the largest absolute entry of the recorded array.
      tolerance: the most that `max_abs` or `relative` may be; `of` says which.
      note: what is unusual about the rule.
    """

    name: str
    max_abs: float
    relative: float
    tolerance: float
    of: Literal["absolute", "relative"] = "absolute"
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the difference is inside the tolerance; NaN never is."""
        return (self.max_abs if self.of == "absolute" else self.relative) <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far a short format is from fp32 in one place of the model.

    `relative` is `max_abs` over the largest entry, `rms_relative` the RMS of the difference over
    the RMS of the fp32 numbers.
    """

    name: str
    max_abs: float
    relative: float
    rms_relative: float


def measure(
    case: GoldenCase, batch: Row, *, compiler_options: Options | None = None
) -> tuple[Numbers, Params]:
    """What our model, loss and training step give for a case, in fp32 throughout.

    Matrix products too are full fp32, which TPU and GPU do not do by themselves.

    Args:
      case: its weights are used, not its outputs.
      batch: the pair as one row (B = 1), with `frames`.
      compiler_options: for XLA; tests of many shapes compile with less optimization.

    Returns:
      Numbers by the names in `OUTPUTS`, and the gradient as the parameters have it.
    """
    graph, _ = abstract_model(case.config)
    loss = TPOLoss(beta=case.beta, sft_weight=case.sft_weight)

    log_probs = make_reference_step(graph, jnp.float32)
    train_step = make_train_step(graph, loss, _keep_gradients(), jnp.float32)

    def tell(params: Params, batch: Row) -> tuple[Numbers, jax.Array]:
        return _forward(nnx.merge(graph, params), batch), log_probs(params, batch)

    forward = jax.jit(tell, compiler_options=compiler_options)
    step = jax.jit(train_step, compiler_options=compiler_options)
    with jax.default_matmul_precision("highest"):
        arrays, policy = forward(case.policy.params, batch)
        _, reference = forward(case.reference.params, batch)
        trained, frozen = split_frozen(case.policy.params, frozen=())
        state, metrics = step(
            init_state(trained, frozen, _keep_gradients()),
            {**batch, "reference_logprobs": reference},
        )
    if "sft_loss" not in metrics:  # its weight is 0
        metrics |= SFT()(policy, row_mask(batch))[1]
    sums = dict(zip(LOGPROBS, (*policy[0].sum(axis=-1), *reference[0].sum(axis=-1)), strict=True))
    logits_KAV = arrays.pop(LOGITS)[0, :, :, : case.config.language.vocab_rows]
    arrays["chosen_logits"] = logits_KAV[0, : len(case.chosen)]
    arrays["rejected_logits"] = logits_KAV[1, : len(case.rejected)]
    numbers = arrays | sums | {name: metrics[name] for name in LOSSES}
    return jax.device_get(numbers), jax.device_get(state.opt_state)


def compare(case: GoldenCase, numbers: Numbers, grads: Params) -> list[Comparison]:
    """Every output and every gradient, `numbers` and `grads` being those of `measure`."""
    tolerances = dict.fromkeys(ARRAYS, ARRAY_TOLERANCE)
    tolerances |= dict.fromkeys(LOGPROBS, LOGPROB_TOLERANCE)
    tolerances |= dict.fromkeys(LOSSES, LOSS_TOLERANCE)
    rows = []
    for name, tolerance in tolerances.items():
        max_abs, relative = _difference(numbers[name], case.outputs[name])
        rows.append(Comparison(name=name, max_abs=max_abs, relative=relative, tolerance=tolerance))
    return rows + sorted(_compare_grads(case, grads), key=lambda row: _by_number(row.name))


def _by_number(name: str) -> list[tuple[str, int]]:
    """A key to sort names by, in which layer 10 comes after layer 2."""
    return [(part, 0) if not part.isdigit() else ("", int(part)) for part in name.split(".")]


def _compare_grads(case: GoldenCase, grads: Params) -> Iterator[Comparison]:
    ours = _by_their_names(grads, case.policy.naming)
    for name, (path, layer, grad) in ours.items():
        if name not in case.grads:
            yield Comparison(
                name=name,
                max_abs=float(np.max(np.abs(grad))),
                relative=0.0,
                tolerance=0.0,
                note="no gradient recorded: ours must be zero",
            )
            continue
        expected = case.grads[name]
        max_abs, relative = _difference(grad, expected)
        if path == UNSEEN_BIAS:
            beside = case.grads.get(keys.their_name(SEEN_BESIDE_IT, layer, case.policy.naming))
            largest = 0.0 if beside is None else float(np.max(np.abs(beside)))
            sizes = float(np.max(np.abs(grad))), float(np.max(np.abs(expected)))
            yield Comparison(
                name=name,
                max_abs=max(max_abs, *sizes),
                relative=relative,
                tolerance=UNSEEN_TOLERANCE * largest,
                note=UNSEEN_BIAS_NOTE,
            )
            continue
        yield Comparison(
            name=name, max_abs=max_abs, relative=relative, tolerance=GRAD_TOLERANCE, of="relative"
        )
    for name in case.grads:
        if name not in ours:
            yield Comparison(
                name=name,
                max_abs=np.nan,
                relative=np.nan,
                tolerance=GRAD_TOLERANCE,
                of="relative",
                note="recorded, but there is no such parameter here",
            )


def _by_their_names(grads: Params, naming: keys.Naming) -> dict[str, tuple[str, int, np.ndarray]]:
    """(path, layer, array in their layout) by tensor name."""
    found = {}
    for path, grad in keys.flat_paths(grads):
        for layer, (name, _) in enumerate(keys.their_tensors(path, grad.shape, naming)):
            one = grad[layer] if keys.is_stacked(path) else grad
            found[name] = path, layer, keys.to_theirs(path, one)
    return found


def _difference(ours: Any, expected: Any) -> tuple[float, float]:
    """Largest absolute difference, and the same as a part of the largest expected entry."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape, (ours.shape, expected.shape)
    max_abs, largest = float(np.max(np.abs(ours - expected))), float(np.max(np.abs(expected)))
    if largest == 0:
        return max_abs, 0.0 if max_abs == 0 else np.inf
    return max_abs, max_abs / largest


def _keep_gradients() -> optax.GradientTransformation:
    """An optimizer that changes nothing; its state after a step is the step's gradient."""

    def update(grads: Params, state: Params, params: Params | None = None) -> tuple[Params, Params]:
        return jax.tree.map(jnp.zeros_like, grads), grads

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def _forward(model: VideoLMM, batch: Row) -> Numbers:
    visual_BMD = model.encode_videos(batch["frames"])
    row = batch["tokens"], visual_BMD, batch["visual_index"], batch["positions"]
    hidden_BTD, _ = model(*row, batch_layout(batch))
    states_BKAD = predicting_states(hidden_BTD, *batch["answers"].shape[1:])
    return {
        "vision_features": model.vision(batch["frames"][0]),
        "visual_tokens": visual_BMD[0],
        LOGITS: model.logits(states_BKAD),
    }


# ------------------------------------------------------------------------ bf16, layer by layer


def measure_layers(
    case: GoldenCase,
    batch: Row,
    dtype: jnp.dtype,
    *,
    compiler_options: Options | None = None,
) -> list[LayerError]:
    """How far a case computed in `dtype` on the default device is from fp32 on the CPU.

    Both sides start from the same fp32 weights and see the same row; recorded outputs are not used.
    Places of padding do not count.

    Raises:
      InputError: JAX was started without its CPU backend.
    """
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError as error:
        raise InputError(
            "the fp32 side runs on the CPU, which JAX was told not to use; "
            "add cpu to JAX_PLATFORMS, as in JAX_PLATFORMS=tpu,cpu"
        ) from error
    with jax.default_matmul_precision("highest"):
        expected = _states(case, batch, jnp.float32, cpu, compiler_options)
    ours = _states(case, batch, dtype, jax.devices()[0], compiler_options)
    return [_layer_error(name, ours[name], expected[name]) for name in expected]


def _states(
    case: GoldenCase,
    batch: Row,
    dtype: jnp.dtype,
    device: jax.Device,
    compiler_options: Options | None,
) -> dict[str, np.ndarray]:
    """Every state of the model by name, and the losses, from a run in `dtype` on `device`."""
    graph, _ = abstract_model(case.config)
    loss = TPOLoss(beta=case.beta, sft_weight=case.sft_weight)

    def run(params: Params, reference: Params, batch: Row) -> tuple[Numbers, Numbers]:
        model: VideoLMM = nnx.merge(graph, cast(params, dtype))
        policy = row_logprobs(model, batch)
        base = row_logprobs(nnx.merge(graph, cast(reference, dtype)), batch)
        _, metrics = loss(policy, row_mask(batch), base)
        metrics |= SFT()(policy, row_mask(batch))[1]
        sums = jnp.concatenate([policy[0].sum(axis=-1), base[0].sum(axis=-1)])
        return all_states(model, batch), metrics | dict(zip(LOGPROBS, sums, strict=True))

    everything = jax.device_put((case.policy.params, case.reference.params, dict(batch)), device)
    compiled = jax.jit(run, compiler_options=compiler_options)
    states, scalars = jax.device_get(compiled(*everything))
    is_token_BT = np.asarray(batch["branch"]) != PAD_BRANCH
    is_target_BKA = np.asarray(batch["answer_mask"]) > 0
    found: dict[str, np.ndarray] = {}
    for name in (*VIDEO_STATES, *ROW_STATES):
        state = states[name][..., is_token_BT, :] if name in ROW_STATES else states[name]
        each = enumerate(state) if "{}" in name else [(0, state)]
        found |= {name.format(layer): one for layer, one in each}
    found[LOGITS] = states[LOGITS][is_target_BKA][:, : case.config.language.vocab_rows]
    return found | {name: scalars[name] for name in (*LOGPROBS, *LOSSES)}


def all_states(model: VideoLMM, batch: Row) -> Numbers:
    """By the names in VIDEO_STATES and ROW_STATES, layers stacked, and the logits."""
    tower_LFPD = model.vision.states(batch["frames"][0])
    projected_FPD = model.projector(model.vision(batch["frames"][0]))
    visual_BMD = model.encode_videos(batch["frames"])
    layout = batch_layout(batch)
    x_BTD = model.embed(batch["tokens"], visual_BMD, batch["visual_index"])
    layers_LBTD = model.language.states(x_BTD, batch["positions"], layout)
    hidden_BTD, _ = model.language(x_BTD, batch["positions"], layout)
    video = tower_LFPD[0], tower_LFPD[1:], projected_FPD, visual_BMD[0]
    states = dict(zip(VIDEO_STATES, video, strict=True))
    states |= dict(zip(ROW_STATES, (x_BTD, layers_LBTD, hidden_BTD), strict=True))
    states_BKAD = predicting_states(hidden_BTD, *batch["answers"].shape[1:])
    return states | {LOGITS: model.logits(states_BKAD)}


def _layer_error(name: str, ours: Any, expected: Any) -> LayerError:
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    max_abs, relative = _difference(ours, expected)
    rms, size = (float(np.sqrt(np.mean(x * x))) for x in (ours - expected, expected))
    return LayerError(
        name=name,
        max_abs=max_abs,
        relative=relative,
        rms_relative=rms / size if size else (np.inf if rms else 0.0),
    )
