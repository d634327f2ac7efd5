"""The losses, each a small frozen dataclass with its own fields.

They see only per-token log-probs [B, K, A] (zero outside the mask): answer 0 is the chosen one,
answer 1 the rejected one.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

LogProbs = Float[Array, "B K A"]
Metrics = dict[str, jax.Array]


class Loss(Protocol):
    """What a training step asks of a loss."""

    @property
    def needs_reference(self) -> bool:
        """Whether batches must carry `reference_logprobs`."""
        ...

    def __call__(
        self, policy: LogProbs, mask: LogProbs, reference: LogProbs | None
    ) -> tuple[jax.Array, Metrics]:
        """The loss of a batch, and its metrics."""
        ...


@dataclass(frozen=True, kw_only=True)
class DPO:
    """Direct preference optimization, sigmoid form (arXiv 2305.18290, eq. 7).

    -log sigmoid(beta * [(pi_chosen - ref_chosen) - (pi_rejected - ref_rejected)]), where each is
    the SUM of an answer's token log-probs; mean over pairs.
    """

    beta: float

    def __call__(self, policy: LogProbs, reference: LogProbs) -> tuple[jax.Array, Metrics]:
        """Loss and what is worth watching of it: rewards, margin, accuracy, log-probs."""
        rewards_BK = self.beta * jnp.sum(policy - reference, axis=-1)
        margin_B = rewards_BK[:, 0] - rewards_BK[:, 1]
        loss = jnp.mean(jax.nn.softplus(-margin_B))
        chosen, rejected = jnp.mean(jnp.sum(policy, axis=-1), axis=0)
        return loss, {
            "dpo_loss": loss,
            "logprob_chosen": chosen,
            "logprob_rejected": rejected,
            "reward_chosen": jnp.mean(rewards_BK[:, 0]),
            "reward_rejected": jnp.mean(rewards_BK[:, 1]),
            "reward_margin": jnp.mean(margin_B),
            "reward_accuracy": jnp.mean((margin_B > 0).astype(jnp.float32)),
        }


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Negative log-likelihood of the chosen answer: mean over its tokens, then over rows.

    What the authors' trainer amounts to at one pair per device.
    """

    def __call__(self, policy: LogProbs, mask: LogProbs) -> tuple[jax.Array, Metrics]:
        """Loss on answer 0."""
        tokens_B = jnp.maximum(jnp.sum(mask[:, 0], axis=-1), 1)
        loss = jnp.mean(-jnp.sum(policy[:, 0], axis=-1) / tokens_B)
        return loss, {"sft_loss": loss}


@dataclass(frozen=True, kw_only=True)
class TPOLoss:
    """dpo_weight * DPO + sft_weight * SFT, the loss of TPO (the paper's alpha is `sft_weight`).

    With `dpo_weight=0` no reference and no rejected answer is needed.
    """

    beta: float = 0.1
    dpo_weight: float = 1.0
    sft_weight: float = 1.0

    @property
    def needs_reference(self) -> bool:
        """Whether batches must carry `reference_logprobs`."""
        return self.dpo_weight != 0

    def __call__(
        self, policy: LogProbs, mask: LogProbs, reference: LogProbs | None
    ) -> tuple[jax.Array, Metrics]:
        """The weighted sum and the metrics of both terms."""
        total = jnp.zeros(())
        metrics: Metrics = {}
        if self.needs_reference:
            assert reference is not None
            loss, seen = DPO(beta=self.beta)(policy, reference)
            total, metrics = total + self.dpo_weight * loss, metrics | seen
        if self.sft_weight:
            loss, seen = SFT()(policy, mask)
            total, metrics = total + self.sft_weight * loss, metrics | seen
        return total, metrics | {"loss": total}


@dataclass(frozen=True, kw_only=True)
class EveryAnswerSFT:
    """SFT on every branch of a row, for rows of several questions on one video."""

    needs_reference: bool = False

    def __call__(
        self, policy: LogProbs, mask: LogProbs, reference: LogProbs | None
    ) -> tuple[jax.Array, Metrics]:
        """The mean over all branches of all rows."""
        loss, seen = SFT()(*(rearrange(x, "B K A -> (B K) 1 A") for x in (policy, mask)))
        return loss, seen | {"loss": loss}
