"""One attention function for the whole project: `attend`.

What a token may see is described once, by a `Layout`, and never by a [T, T] mask that a caller
builds. Kernels are chosen behind `attend`; each must equal `dense.attend_dense`.
"""

from tpo_jax.attention.choice import attend, row_kernel, row_multiple
from tpo_jax.attention.layout import PAD_BRANCH, PROMPT_BRANCH, Layout, RowParts, row_layout
from tpo_jax.attention.shared import attend_shared

__all__ = [
    "PAD_BRANCH",
    "PROMPT_BRANCH",
    "Layout",
    "RowParts",
    "attend",
    "attend_shared",
    "row_kernel",
    "row_layout",
    "row_multiple",
]
