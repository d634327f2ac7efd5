"""Losses on pairs: how much better the policy likes the chosen answer than the reference does.

One frozen dataclass a loss. All see per-token log-probs [B, 2, N], answer 0 the chosen one and
answer 1 the rejected one, and start from each answer's log-ratio, log pi(y|x) - log ref(y|x).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tpo_jax.errors import InputError

LogProbs = Float[Array, "B K N"]
Metrics = dict[str, jax.Array]


def supervised_rows(mask: LogProbs) -> Float[Array, " B"]:
    """1 for each row with anything to learn, 0 for one that only fills up a batch."""
    return jnp.any(mask > 0, axis=(1, 2)).astype(jnp.float32)


def per_weight(total: jax.Array, weight: jax.Array) -> jax.Array:
    """`total / weight`; 0 for a batch of weight 0, which has nothing in it."""
    return total / jnp.maximum(weight, 1)


@dataclass(frozen=True, kw_only=True)
class PairLoss(ABC):
    """What they share: the mean over pairs of a loss of each, and the metrics.

    Called with `total_weight`, the pairs of a larger batch, it returns this batch's share: the
    loss and every metric of the parts of a batch then add up to those of the whole.
    """

    beta: float

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise InputError(f"loss: beta is {self.beta}; must be a positive number")

    @abstractmethod
    def of_pairs(
        self, ratios_B2: Float[Array, "B 2"], lengths_B2: Float[Array, "B 2"]
    ) -> Float[Array, " B"]:
        """The loss of each pair, from its log-ratios and the supervised tokens of its answers."""

    def log_ratios(
        self, policy: LogProbs, mask: LogProbs, reference: LogProbs
    ) -> Float[Array, "B 2"]:
        """log pi - log ref of each answer, summed over its supervised tokens."""
        return jnp.sum((policy - reference) * mask, axis=-1)

    @property
    def at_reference(self) -> float:
        """The loss while the policy still is the reference, whatever the pairs."""
        return float(self.of_pairs(jnp.zeros((1, 2)), jnp.ones((1, 2)))[0])

    def weight(self, mask: LogProbs) -> jax.Array:
        """The number of pairs."""
        return jnp.sum(supervised_rows(mask))

    def __call__(
        self,
        policy: LogProbs,
        mask: LogProbs,
        reference: LogProbs | None,
        total_weight: jax.Array | None = None,
    ) -> tuple[jax.Array, Metrics]:
        """The loss, and what is worth watching of it: rewards, margin, accuracy.

        The reward of an answer is beta times its log-ratio, for every loss. A pair counts as
        accurate when the chosen answer's reward is greater; equal is not enough.

        Raises:
          InputError: rows without two answers, or no reference.
        """
        if policy.shape[1] != 2 or reference is None:
            found = f"{policy.shape[1]} answers and {'no' if reference is None else 'a'} reference"
            raise InputError(
                f"a loss on pairs needs rows of 2 answers and a reference, found {found}; "
                "set config.loss.dpo_weight to 0 to train on answers alone"
            )
        total = self.weight(mask) if total_weight is None else total_weight
        rows_B = supervised_rows(mask)

        def mean(values_B: jax.Array) -> jax.Array:
            return per_weight(jnp.sum(values_B * rows_B), total)

        ratios_B2 = self.log_ratios(policy, mask, reference)
        loss = mean(self.of_pairs(ratios_B2, jnp.maximum(jnp.sum(mask, axis=-1), 1)))
        rewards_B2 = self.beta * ratios_B2
        margin_B = rewards_B2[:, 0] - rewards_B2[:, 1]
        return loss, {
            "dpo_loss": loss,
            "reward_chosen": mean(rewards_B2[:, 0]),
            "reward_rejected": mean(rewards_B2[:, 1]),
            "reward_margin": mean(margin_B),
            "reward_accuracy": mean((margin_B > 0).astype(jnp.float32)),
        }


def _check_smoothing(value: float) -> None:
    if not 0 <= value < 0.5:
        raise InputError(
            f"loss: label_smoothing is {value}; must be 0 or more and less than 0.5: it is the "
            "share of pairs whose answers stand the wrong way round"
        )


# ----------------------------------------------------------------------------------- the losses


@dataclass(frozen=True, kw_only=True)
class DPO(PairLoss):
    """Direct preference optimization, sigmoid form (arXiv 2305.18290, eq. 7).

    With d the chosen log-ratio less the rejected one: -log sigmoid(beta * d). With
    `label_smoothing` e it is (1 - e) times that, plus e times the loss of the pair turned round:
    conservative DPO (E. Mitchell, "A note on DPO with noisy preferences & relationship to IPO",
    2023).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_smoothing(self.label_smoothing)

    def of_pairs(
        self, ratios_B2: Float[Array, "B 2"], lengths_B2: Float[Array, "B 2"]
    ) -> Float[Array, " B"]:
        """Both labels, each as likely as it is."""
        x_B = self.beta * (ratios_B2[:, 0] - ratios_B2[:, 1])
        e = self.label_smoothing
        return (1 - e) * jax.nn.softplus(-x_B) + e * jax.nn.softplus(x_B)


@dataclass(frozen=True, kw_only=True)
class RobustDPO(PairLoss):
    """Robust DPO (arXiv 2403.00409): unbiased when a share e of the pairs is turned round.

    ((1 - e) * loss - e * loss of the pair turned round) / (1 - 2 e), with e `label_smoothing`.
    """

    label_smoothing: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_smoothing(self.label_smoothing)

    def of_pairs(
        self, ratios_B2: Float[Array, "B 2"], lengths_B2: Float[Array, "B 2"]
    ) -> Float[Array, " B"]:
        """What wrong labels add on average, taken off again."""
        x_B = self.beta * (ratios_B2[:, 0] - ratios_B2[:, 1])
        e = self.label_smoothing
        kept, turned = jax.nn.softplus(-x_B), jax.nn.softplus(x_B)
        return ((1 - e) * kept - e * turned) / (1 - 2 * e)


@dataclass(frozen=True, kw_only=True)
class IPO(PairLoss):
    """Identity preference optimization (arXiv 2310.12036, eq. 17; `beta` is its tau).

    (d - 1 / (2 beta))^2, where d compares log-ratios per token: each is divided by its answer's
    length. The paper's formula does not say so; TRL does it, as its authors told its makers.
    """

    def of_pairs(
        self, ratios_B2: Float[Array, "B 2"], lengths_B2: Float[Array, "B 2"]
    ) -> Float[Array, " B"]:
        """A squared distance: a margin too large costs as much as one too small."""
        per_token_B2 = ratios_B2 / lengths_B2
        return (per_token_B2[:, 0] - per_token_B2[:, 1] - 1 / (2 * self.beta)) ** 2


@dataclass(frozen=True, kw_only=True)
class Hinge(PairLoss):
    """max(0, 1 - beta * d): SLiC's hinge (arXiv 2305.10425) on log-ratios (arXiv 2309.06657)."""

    def of_pairs(
        self, ratios_B2: Float[Array, "B 2"], lengths_B2: Float[Array, "B 2"]
    ) -> Float[Array, " B"]:
        """Nothing once the margin is 1."""
        return jax.nn.relu(1 - self.beta * (ratios_B2[:, 0] - ratios_B2[:, 1]))


@dataclass(frozen=True, kw_only=True)
class LengthNormalizedDPO(PairLoss):
    """DPO on log-ratios per token (arXiv 2411.15124, its length-normalized DPO).

    Each log-ratio is divided by its answer's length. Fit `beta` to that: they are smaller.
    """

    def of_pairs(
        self, ratios_B2: Float[Array, "B 2"], lengths_B2: Float[Array, "B 2"]
    ) -> Float[Array, " B"]:
        """-log sigmoid of the difference per token."""
        per_token_B2 = ratios_B2 / lengths_B2
        return jax.nn.softplus(-self.beta * (per_token_B2[:, 0] - per_token_B2[:, 1]))


@dataclass(frozen=True, kw_only=True)
class LengthDesensitizedDPO(PairLoss):
    """LD-DPO (arXiv 2409.06411): what a longer answer has more counts less.

    An answer's tokens up to the length of the shorter answer of its pair count whole, those after
    it `length_alpha` times. 1 is plain DPO; 0 cuts the longer answer off.
    """

    length_alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.length_alpha <= 1:
            raise InputError(f"loss: length_alpha is {self.length_alpha}; must be 0 to 1")

    def log_ratios(
        self, policy: LogProbs, mask: LogProbs, reference: LogProbs
    ) -> Float[Array, "B 2"]:
        """log pi - log ref of each answer, its tail weighted."""
        # Counted along the mask: it may have gaps, where a prompt has fewer targets than the row.
        number_BKN = jnp.cumsum(mask, axis=-1)
        shorter_B = jnp.min(jnp.sum(mask, axis=-1), axis=-1)
        is_tail = number_BKN > shorter_B[:, None, None]
        share_BKN = jnp.where(is_tail, self.length_alpha, 1.0)
        return jnp.sum((policy - reference) * mask * share_BKN, axis=-1)

    def of_pairs(
        self, ratios_B2: Float[Array, "B 2"], lengths_B2: Float[Array, "B 2"]
    ) -> Float[Array, " B"]:
        """-log sigmoid of the difference."""
        return jax.nn.softplus(-self.beta * (ratios_B2[:, 0] - ratios_B2[:, 1]))
