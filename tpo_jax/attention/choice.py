"""Which kernel computes attention, by what is asked for and where it runs."""

from typing import Literal

import jax
from jaxtyping import Array, Float

from tpo_jax.attention.blockwise import BLOCK_QUERIES, attend_blockwise
from tpo_jax.attention.dense import attend_dense
from tpo_jax.attention.layout import Layout

Kernel = Literal["dense", "blockwise"]


def row_kernel(context: int) -> Kernel:
    """The kernel for whole rows that are spread over `context` devices each.

    Blocks are cut along a row, so a row must lie on one device. TPUs have no kernel of their own
    yet.
    """
    return "blockwise" if context == 1 and jax.default_backend() != "tpu" else "dense"


def attend(
    q_BTHE: Float[Array, "B T H E"],
    k_BSKE: Float[Array, "B S K E"],
    v_BSKE: Float[Array, "B S K E"],
    layout: Layout | None = None,
) -> Float[Array, "B T H E"]:
    """Scaled dot-product attention with grouped keys, softmax in fp32.

    Key head j serves query heads j*G .. j*G+G-1 with G = H / K. `layout=None` lets every query see
    every key (the vision tower). What a padding query yields is of no meaning.
    """
    if layout is not None and layout.in_order and q_BTHE.shape[1] > BLOCK_QUERIES:
        mesh = jax.sharding.get_abstract_mesh()
        if row_kernel(mesh.shape.get("context", 1)) == "blockwise":
            return attend_blockwise(q_BTHE, k_BSKE, v_BSKE, layout)
    return attend_dense(q_BTHE, k_BSKE, v_BSKE, layout)
