"""What a training step minimizes: a loss on pairs, supervision of answers, and weighted sums.

Losses see only per-token log-probs [B, K, N] (zero outside the mask): answer 0 is the chosen one,
answer 1 the rejected one. Each is a sum over rows or tokens, divided by how many there are. So a
batch can be done in parts: given the whole batch's `total_weight`, the losses, the gradients and
the metrics of the parts add up to the whole batch's, however uneven the answers are.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import jax
import jax.numpy as jnp
from einops import rearrange

from tpo_jax.errors import InputError
from tpo_jax.preference.pair_losses import (
    DPO,
    IPO,
    Hinge,
    LengthDesensitizedDPO,
    LengthNormalizedDPO,
    LogProbs,
    Metrics,
    PairLoss,
    RobustDPO,
    per_weight,
    supervised_rows,
)

Weight = jax.Array | dict[str, jax.Array]
Reduction = Literal["pair_mean", "token_mean", "sum"]
Preference = Literal[
    "sigmoid", "ipo", "hinge", "robust", "length_desensitized", "length_normalized"
]

PREFERENCES: dict[str, type[PairLoss]] = {
    "sigmoid": DPO,
    "ipo": IPO,
    "hinge": Hinge,
    "robust": RobustDPO,
    "length_desensitized": LengthDesensitizedDPO,
    "length_normalized": LengthNormalizedDPO,
}
# The fields of TPOLoss that some of them have and others have not.
PREFERENCE_OPTIONS = ("label_smoothing", "length_alpha")


class Loss(Protocol):
    """What a training step asks of a loss."""

    @property
    def needs_reference(self) -> bool:
        """Whether batches must carry `reference_logprobs`."""
        ...

    def weight(self, mask: LogProbs) -> Weight:
        """What the sums over a batch are divided by: an array, or one a term.

        Added up over the parts of a batch, leaf by leaf, it is the whole batch's.
        """
        ...

    def __call__(
        self,
        policy: LogProbs,
        mask: LogProbs,
        reference: LogProbs | None,
        total_weight: Weight | None = None,
    ) -> tuple[jax.Array, Metrics]:
        """The loss of a batch, and its metrics with the loss itself under "loss".

        With `total_weight`, the weight of a larger batch, it is this batch's share of that one's
        loss, and so is every metric.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Negative log-likelihood of the chosen answer, or of the only one.

    Attributes:
      reduction: "pair_mean" is the mean over an answer's tokens, then over rows: what the authors'
        trainer amounts to at one pair per device. "token_mean" is the mean over all tokens of a
        batch, so that long answers count more. "sum" is the sum over an answer's tokens, then the
        mean over rows: the paper's formula (arXiv 2501.13919).
    """

    reduction: Reduction = "pair_mean"

    def __post_init__(self) -> None:
        if self.reduction not in get_args(Reduction):
            known = ", ".join(get_args(Reduction))
            raise InputError(f"loss: sft_reduction is {self.reduction!r}; must be one of {known}")

    def weight(self, mask: LogProbs) -> jax.Array:
        """The number of tokens for "token_mean", of rows otherwise."""
        if self.reduction == "token_mean":
            return jnp.sum(mask[:, 0])
        return jnp.sum(supervised_rows(mask[:, :1]))

    def __call__(
        self, policy: LogProbs, mask: LogProbs, total_weight: jax.Array | None = None
    ) -> tuple[jax.Array, Metrics]:
        """Loss on answer 0."""
        nll_B = -jnp.sum(policy[:, 0] * mask[:, 0], axis=-1)
        if self.reduction == "pair_mean":
            nll_B = nll_B / jnp.maximum(jnp.sum(mask[:, 0], axis=-1), 1)
        loss = per_weight(
            jnp.sum(nll_B), self.weight(mask) if total_weight is None else total_weight
        )
        return loss, {"sft_loss": loss}


@dataclass(frozen=True, kw_only=True)
class TPOLoss:
    """dpo_weight * (a loss on pairs) + sft_weight * SFT: the loss of TPO (arXiv 2501.13919).

    The paper's alpha is `sft_weight`; its loss on pairs is plain DPO. A weight of 0 takes a term
    out, with all its settings. Without the first term no reference is needed and nothing but
    answer 0 is learned, so rows of one answer will do: supervised fine-tuning.

    Attributes:
      preference: the loss on pairs, a name in `PREFERENCES`.
      beta: of the loss on pairs.
      label_smoothing: of "sigmoid" (None is 0) and "robust" (which must be given one).
      length_alpha: of "length_desensitized", which must be given one.
      sft_reduction: of SFT.

    Raises:
      InputError: a value out of range, an option that the chosen loss does not have, or none that
        it must be given; or both weights are 0.
    """

    preference: Preference = "sigmoid"
    beta: float = 0.1
    label_smoothing: float | None = None
    length_alpha: float | None = None
    dpo_weight: float = 1.0
    sft_weight: float = 1.0
    sft_reduction: Reduction = "pair_mean"

    def __post_init__(self) -> None:
        for name in ("dpo_weight", "sft_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"loss: {name} is {getattr(self, name)}; must be 0 or more")
        if not self.dpo_weight and not self.sft_weight:
            raise InputError("loss: dpo_weight and sft_weight are both 0: nothing would be learned")
        # Made here for their checks.
        if self.dpo_weight:
            _ = self.pair_loss
        if self.sft_weight:
            _ = self.sft

    @property
    def needs_reference(self) -> bool:
        """Whether batches must carry `reference_logprobs`."""
        return self.dpo_weight != 0

    @property
    def pair_loss(self) -> PairLoss:
        """The loss on pairs that `preference` names, with its options."""
        if self.preference not in PREFERENCES:
            known = ", ".join(PREFERENCES)
            raise InputError(f"loss: preference is {self.preference!r}; must be one of {known}")
        kind = PREFERENCES[self.preference]
        options = {"beta": self.beta}
        fields = {field.name: field for field in dataclasses.fields(kind)}
        for name in PREFERENCE_OPTIONS:
            value = getattr(self, name)
            if value is not None and name not in fields:
                raise InputError(
                    f"loss: {name} is {value}, but preference {self.preference!r} has no use for "
                    f"it; leave {name} out (None)"
                )
            if value is not None:
                options[name] = value
            elif name in fields and fields[name].default is dataclasses.MISSING:
                raise InputError(f"loss: preference {self.preference!r} needs a {name}; give one")
        return kind(**options)

    @property
    def sft(self) -> SFT:
        """The term on answers."""
        return SFT(reduction=self.sft_reduction)

    def weight(self, mask: LogProbs) -> dict[str, jax.Array]:
        """The number of rows, by which pairs are counted, and what SFT is divided by."""
        return {"rows": jnp.sum(supervised_rows(mask)), "sft": self.sft.weight(mask)}

    def __call__(
        self,
        policy: LogProbs,
        mask: LogProbs,
        reference: LogProbs | None,
        total_weight: Weight | None = None,
    ) -> tuple[jax.Array, Metrics]:
        """The weighted sum; metrics of both terms, log-probs of answers and tokens learned.

        `logprob_chosen` and `logprob_rejected` are sums over an answer's tokens, averaged over
        rows. `supervised_tokens` counts those of the answers that are learned from; a target in
        the prompt counts for each.
        """
        total = self.weight(mask) if total_weight is None else total_weight
        assert isinstance(total, dict)
        value = jnp.zeros(())
        metrics: Metrics = {}
        if self.dpo_weight:
            loss, seen = self.pair_loss(policy, mask, reference, total["rows"])
            value, metrics = value + self.dpo_weight * loss, metrics | seen
        if self.sft_weight:
            loss, seen = self.sft(policy, mask, total["sft"])
            value, metrics = value + self.sft_weight * loss, metrics | seen
        learned = mask if self.dpo_weight else mask[:, :1]
        metrics["supervised_tokens"] = jnp.sum(learned)
        logprobs_K = per_weight(jnp.sum(policy * mask, axis=(0, 2)), total["rows"])
        for name, logprob in zip(("chosen", "rejected"), logprobs_K, strict=False):
            metrics[f"logprob_{name}"] = logprob
        return value, metrics | {"loss": value}


@dataclass(frozen=True, kw_only=True)
class EveryAnswerSFT:
    """SFT on every branch of a row, for rows of several questions on one video."""

    reduction: Reduction = "pair_mean"

    @property
    def needs_reference(self) -> bool:
        """It never does."""
        return False

    def weight(self, mask: LogProbs) -> jax.Array:
        """As that of `SFT`, each branch a row."""
        return SFT(reduction=self.reduction).weight(_branches(mask))

    def __call__(
        self,
        policy: LogProbs,
        mask: LogProbs,
        reference: LogProbs | None,
        total_weight: Weight | None = None,
    ) -> tuple[jax.Array, Metrics]:
        """The mean over all branches of all rows."""
        assert not isinstance(total_weight, dict)
        sft = SFT(reduction=self.reduction)
        loss, seen = sft(_branches(policy), _branches(mask), total_weight)
        return loss, seen | {"loss": loss, "supervised_tokens": jnp.sum(mask)}


def _branches(values: LogProbs) -> LogProbs:
    """Every answer as a row of its own."""
    return rearrange(values, "B K N -> (B K) 1 N")
