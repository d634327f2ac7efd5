"""Which token may see which: order in the row, and the branch a token belongs to.

A row is `[prompt | answer 1 | answer 2 | ...]`. The prompt is branch 0 and is seen by every answer;
answers are branches 1, 2, ... and do not see each other. A padding token is branch -1.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

PAD_BRANCH = -1
PROMPT_BRANCH = 0


@dataclass(frozen=True, kw_only=True)
class RowParts:
    """Places of a row, padding counted: `prompt`, then `answers` times `answer`."""

    prompt: int
    answer: int = 0
    answers: int = 0

    @property
    def tokens(self) -> int:
        """All places of the row."""
        return self.prompt + self.answers * self.answer


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Layout:
    """Order and branch of the queries [B, T] and of the keys [B, S], all int32.

    `row` says that queries and keys are the same whole rows, in order, and where their parts lie:
    take it back (None) when replacing either. It repeats what the branches say of tokens that are
    no padding, but is known before the step is compiled.
    """

    order_q: Int[Array, "B T"]
    branch_q: Int[Array, "B T"]
    order_k: Int[Array, "B S"]
    branch_k: Int[Array, "B S"]
    row: RowParts | None = field(default=None, metadata={"static": True})

    def allowed(self) -> Bool[Array, "B T S"]:
        """True where the query may see the key: not later, and in the prompt or its branch."""
        earlier = self.order_k[:, None, :] <= self.order_q[:, :, None]
        branch_k = self.branch_k[:, None, :]
        reachable = (branch_k == PROMPT_BRANCH) | (branch_k == self.branch_q[:, :, None])
        return earlier & reachable & (branch_k != PAD_BRANCH)


def row_layout(branch_BT: Int[Array, "B T"], *, answers: int = 0, answer: int = 0) -> Layout:
    """Layout of whole rows attending to themselves; order is the place in the row.

    Args:
      branch_BT: branch of each token.
      answers: how many answers a row ends with, each in `answer` places; the rest is the prompt.
    """
    tokens = branch_BT.shape[1]
    order_BT = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32), branch_BT.shape)
    return Layout(
        order_q=order_BT,
        branch_q=branch_BT,
        order_k=order_BT,
        branch_k=branch_BT,
        row=RowParts(prompt=tokens - answers * answer, answer=answer, answers=answers),
    )
