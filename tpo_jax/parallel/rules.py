"""One table: parameter path -> mesh axes. A parameter must match exactly one rule."""

import re
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tpo_jax.errors import InputError
from tpo_jax.models.video_lmm import VideoLMMConfig

# Leaves under `layers/` carry the stacked layer axis first. Linear kernels are [in, out].
RULES: tuple[tuple[str, P], ...] = (
    (r"vision/layers/(q|k|v|fc1)/kernel", P(None, "fsdp", "tensor")),
    (r"vision/layers/(out|fc2)/kernel", P(None, "tensor", "fsdp")),
    (r"vision/layers/\w+/(bias|scale)", P()),
    (r"vision/(patch/kernel|positions/embedding)", P(None, "fsdp")),
    (r"vision/(patch/bias|class_token|pre_norm/\w+|post_norm/\w+)", P()),
    (r"projector/(first|second)/kernel", P("fsdp", "tensor")),
    (r"projector/(first|second)/bias", P()),
    (r"newline", P()),
    (r"language/embed/embedding", P("tensor", "fsdp")),
    (r"language/head/kernel", P("fsdp", "tensor")),
    (r"language/norm/scale", P()),
    (r"language/layers/(q|k|v|gate|up)/kernel", P(None, "fsdp", "tensor")),
    (r"language/layers/(out|down)/kernel", P(None, "tensor", "fsdp")),
    (r"language/layers/\w+/(bias|scale)", P()),
)
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
    """The config with as many rows of padding as the vocabulary needs to divide over the mesh."""
    axis = spec_for("language/embed/embedding")[0]
    padding = -config.language.vocab_rows % mesh.shape[axis]
    return replace(config, language=replace(config.language, padding_rows=padding))


def param_shardings(mesh: Mesh, params: Any) -> Any:
    """A NamedSharding for every parameter of a nested dict (arrays or shapes).

    Also for a tree that holds such dicts, as a training state holds parameters and moments: what
    stands for a parameter lies as the parameter does, and scalars are on all devices.

    Raises:
      InputError: an axis of a parameter does not divide over the mesh axis its rule names.
    """

    def sharding(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = path_of(key_path)
        inside = re.search(PARTS, path)
        # Counters of the optimizer and the loop are scalars; everything else must have a rule.
        spec = spec_for(path[inside.start() if inside else 0 :]) if leaf.ndim else P()
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise InputError(
                    f"parameter {path} of shape {tuple(leaf.shape)}: {size} does not divide over "
                    f"{axis}={mesh.shape[axis]}; choose a smaller config.mesh.{axis}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, params)
