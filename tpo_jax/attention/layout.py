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


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Layout:
    """Order and branch of the queries [B, T] and of the keys [B, S], all int32.

    `in_order` says that queries and keys are the same tokens and their order is their place: take
    it back (False) when replacing either.
    """

    order_q: Int[Array, "B T"]
    branch_q: Int[Array, "B T"]
    order_k: Int[Array, "B S"]
    branch_k: Int[Array, "B S"]
    in_order: bool = field(default=False, metadata={"static": True})

    def allowed(self) -> Bool[Array, "B T S"]:
        """True where the query may see the key: not later, and in the prompt or its branch."""
        earlier = self.order_k[:, None, :] <= self.order_q[:, :, None]
        branch_k = self.branch_k[:, None, :]
        reachable = (branch_k == PROMPT_BRANCH) | (branch_k == self.branch_q[:, :, None])
        return earlier & reachable & (branch_k != PAD_BRANCH)


def row_layout(branch_BT: Int[Array, "B T"]) -> Layout:
    """Layout of whole rows attending to themselves; order is the place in the row."""
    order_BT = jnp.broadcast_to(jnp.arange(branch_BT.shape[1], dtype=jnp.int32), branch_BT.shape)
    return Layout(
        order_q=order_BT,
        branch_q=branch_BT,
        order_k=order_BT,
        branch_k=branch_BT,
        in_order=True,
    )
