"""Which kernel computes attention, by what is asked for and where it runs."""

from functools import partial
from typing import Literal

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from tpo_jax.attention.blockwise import BLOCK_QUERIES, attend_blockwise
from tpo_jax.attention.context import Kernel, attend_over_mesh
from tpo_jax.attention.dense import attend_dense
from tpo_jax.attention.layout import Layout, RowParts
from tpo_jax.attention.splash import BLOCKS, RESIDUALS, attend_splash
from tpo_jax.parallel.mesh import TOKEN_AXIS

# What "auto" stands for is chosen by the platform.
KernelName = Literal["dense", "blockwise", "splash"]


def row_kernel(platform: str) -> KernelName:
    """The kernel for whole rows on "tpu", "cpu" or "gpu"."""
    return "splash" if platform == "tpu" else "blockwise"


def row_multiple(platform: str, context: int) -> int:
    """A number of tokens whose multiples are rows that the kernel takes as they are.

    Others are padded in every layer, forward and backward.
    """
    runs = 2 * context if context > 1 else 1
    return runs * (BLOCKS[1] if row_kernel(platform) == "splash" else 1)


def attend(
    q_BTHE: Float[Array, "B T H E"],
    k_BSKE: Float[Array, "B S K E"],
    v_BSKE: Float[Array, "B S K E"],
    layout: Layout | None = None,
    *,
    kernel: KernelName | None = None,
) -> Float[Array, "B T H E"]:
    """Scaled dot-product attention with grouped keys, softmax in fp32.

    Key head j serves query heads j*G .. j*G+G-1 with G = H / K. `layout=None` lets every query see
    every key (the vision tower). What a padding query yields is of no meaning.

    Whole rows (`layout.row`) of more than 128 tokens go through the platform's kernel, or `kernel`;
    everything else is dense. What the kernel yields bears the name "attention", so that a policy of
    rematerialisation may keep it.
    """
    if layout is None or layout.row is None or q_BTHE.shape[1] <= BLOCK_QUERIES:
        return checkpoint_name(attend_dense(q_BTHE, k_BSKE, v_BSKE, layout), RESIDUALS)
    mesh = jax.sharding.get_abstract_mesh()
    platform = jax.default_backend() if mesh.empty else mesh.abstract_device.platform
    context = 1 if mesh.empty else mesh.shape[TOKEN_AXIS]
    name = kernel or row_kernel(platform)
    chosen = named_kernel(name, layout.row, runs=2 if context > 1 else 1, platform=platform)
    if mesh.empty or (context == 1 and name != "splash"):
        return chosen(q_BTHE, k_BSKE, v_BSKE, layout)
    return attend_over_mesh(chosen, mesh, q_BTHE, k_BSKE, v_BSKE, layout)


def named_kernel(name: KernelName, parts: RowParts, *, runs: int, platform: str) -> Kernel:
    """The kernel of that name, for rows of these parts."""
    if name == "splash":
        interpret = platform != "tpu"
        return partial(attend_splash, parts=parts, runs=runs, interpret=interpret)
    plain = attend_blockwise if name == "blockwise" else attend_dense
    return lambda *inputs: checkpoint_name(plain(*inputs), RESIDUALS)
