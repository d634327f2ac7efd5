"""One table: parameter path -> mesh axes. A parameter must match exactly one rule."""

import math
import re
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import VideoLMMConfig
from tpo_jax.parallel.mesh import ways_of

# Parameters, gradients and moments lie over both: neither axis keeps a copy of them.
SHARDS = ("fsdp", "context")
# Leaves under `layers/` carry the stacked layer axis first. Linear kernels are [in, out].
RULES: tuple[tuple[str, P], ...] = (
    (r"vision/layers/(q|k|v|fc1)/kernel", P(None, SHARDS, "tensor")),
    (r"vision/layers/(out|fc2)/kernel", P(None, "tensor", SHARDS)),
    (r"vision/layers/\w+/(bias|scale)", P()),
    (r"vision/(patch/kernel|positions/embedding)", P(None, SHARDS)),
    (r"vision/(patch/bias|class_token|pre_norm/\w+|post_norm/\w+)", P()),
    (r"projector/(first|second)/kernel", P(SHARDS, "tensor")),
    (r"projector/(first|second)/bias", P()),
    (r"newline", P()),
    (r"language/embed/embedding", P("tensor", SHARDS)),
    (r"language/head/kernel", P(SHARDS, "tensor")),
    (r"language/norm/scale", P()),
    (r"language/layers/(q|k|v|gate|up)/kernel", P(None, SHARDS, "tensor")),
    (r"language/layers/(out|down)/kernel", P(None, "tensor", SHARDS)),
    (r"language/layers/\w+/(bias|scale)", P()),
)
# With so many factors of two the vocabulary of Qwen2 is taken in 22 chunks that divide by 256. The
# published 152,064 rows are a multiple as they are, and `tensor` of 2 to 512 gives the same table.
VOCABULARY_MULTIPLE = 512
PARTS = r"(?<![^/])(vision|projector|newline|language)(?![^/])"


def path_of(key_path: tuple[Any, ...]) -> str:
    """`language/layers/q/kernel` from the key path of a nested dict."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def spec_for(path: str) -> P:
    """The rule of one parameter.

    Raises:
      InputError: no rule or more than one fits.
    """
    fitting = [spec for pattern, spec in RULES if re.fullmatch(pattern, path)]
    if len(fitting) != 1:
        raise InputError(f"parameter {path}: {len(fitting)} sharding rules fit; one must")
    return fitting[0]


def pad_vocabulary(config: VideoLMMConfig, mesh: Mesh) -> VideoLMMConfig:
    """The config with as many rows of padding as make the vocabulary divide well.

    Over the mesh, and again into the chunks that `preference.logprobs` takes it in, each of which
    must divide over the mesh too. A vocabulary that the mesh does not split is not padded.
    """
    ways = mesh.shape[spec_for("language/embed/embedding")[0]]
    multiple = 1 if ways == 1 else math.lcm(VOCABULARY_MULTIPLE, ways)
    padding = -config.language.vocab_rows % multiple
    return replace(config, language=replace(config.language, padding_rows=padding))


def check_heads(config: VideoLMMConfig, mesh: Mesh) -> None:
    """Raises InputError when `tensor` would cut an attention head in two.

    Widths would still divide, but then every score would have to be summed over devices.
    """
    ways = mesh.shape["tensor"]
    counts = {
        "query heads of the decoder": config.language.heads,
        "key heads of the decoder": config.language.kv_heads,
        "heads of the vision tower": config.vision.heads,
    }
    for what, heads in counts.items():
        if heads % ways:
            raise InputError(
                f"config.mesh.tensor={ways} does not divide the {heads} {what}; "
                f"choose a divisor of {math.gcd(*counts.values())}"
            )


def param_shardings(mesh: Mesh, params: Any) -> Any:
    """A NamedSharding for every parameter of a nested dict (arrays or shapes).

    Also for a tree that holds such dicts, as a training state holds parameters and moments: what
    stands for a parameter lies as the parameter does, and scalars are on all devices.

    Raises:
      InputError: an axis of a parameter does not divide over the mesh axis its rule names.
    """

    def sharding(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = path_of(key_path)
        # The last: an optimizer may keep the moments of a part under the part's name.
        inside = [found.start() for found in re.finditer(PARTS, path)]
        # Counters of the optimizer and the loop are scalars; everything else must have a rule.
        spec = spec_for(path[inside[-1] if inside else 0 :]) if leaf.ndim else P()
        for size, axes in zip(leaf.shape, spec, strict=False):
            if size % ways_of(mesh, axes):
                named = (axes,) if isinstance(axes, str) else axes
                raise InputError(
                    f"parameter {path} of shape {tuple(leaf.shape)}: {size} does not divide over "
                    f"{'*'.join(named)}={ways_of(mesh, axes)}; choose a smaller "
                    f"{' or '.join(f'config.mesh.{axis}' for axis in named)}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, params)
