"""The sharding table: every parameter has one rule, and hardly any bytes are copied."""

import jax
import pytest

from tests.tiny import tiny_model
from tpo_jax.errors import InputError
from tpo_jax.models.checkpoint_config import config_from_json
from tpo_jax.models.language import LanguageConfig
from tpo_jax.models.presets import demo_model_json
from tpo_jax.models.video_lmm import VideoLMMConfig, abstract_model
from tpo_jax.models.vision import VisionConfig
from tpo_jax.models.visual_tokens import VisualTokensConfig
from tpo_jax.parallel.mesh import MeshConfig, check_batch, make_mesh
from tpo_jax.parallel.rules import param_shardings, spec_for

SEVEN_B = VideoLMMConfig(
    vision=VisionConfig(
        image_size=336,
        patch_size=14,
        width=1024,
        mlp_width=4096,
        heads=16,
        layers=24,
        layers_used=23,
        norm_eps=1e-5,
        activation="quick_gelu",
        class_token=True,
        pre_norm=True,
        patch_bias=False,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    ),
    language=LanguageConfig(
        vocab_rows=152064,
        width=3584,
        mlp_width=18944,
        layers=28,
        heads=28,
        kv_heads=4,
        head_width=128,
        rope_theta=1e6,
        norm_eps=1e-6,
        qkv_bias=True,
        tied_embeddings=False,
    ),
    visual_tokens=VisualTokensConfig(pool="average", stride=2, newline="grid"),
)


def test_under_two_percent_of_a_7b_is_replicated_on_8_devices() -> None:
    _, shapes = abstract_model(SEVEN_B)
    shardings = param_shardings(make_mesh(MeshConfig(fsdp=8)), shapes)
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes)]
    held = [
        sharding.shard_shape(leaf.shape)
        for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    ]
    whole = sum(
        size
        for size, shard, leaf in zip(sizes, held, jax.tree.leaves(shapes), strict=True)
        if shard == leaf.shape
    )
    assert sum(sizes) > 7.9e9
    assert whole / sum(sizes) < 0.02


@pytest.mark.parametrize("siglip", [True, False])
def test_every_parameter_has_exactly_one_rule(siglip: bool) -> None:
    config = config_from_json(demo_model_json(96)) if siglip else SEVEN_B
    _, shapes = abstract_model(config)
    param_shardings(make_mesh(MeshConfig(), devices=1), shapes)


def test_a_parameter_without_a_rule_is_an_error() -> None:
    with pytest.raises(InputError, match="language/gate/kernel: 0 sharding rules"):
        spec_for("language/gate/kernel")


def test_a_mesh_that_does_not_divide_is_a_sentence() -> None:
    _, _, params = tiny_model(kv_heads=4, heads=4, width=36)
    with pytest.raises(InputError, match=r"36 does not divide over fsdp=8"):
        param_shardings(make_mesh(MeshConfig(fsdp=8)), params)
    with pytest.raises(InputError, match="does not multiply to the 8 devices"):
        make_mesh(MeshConfig(data=3, fsdp=1))
    with pytest.raises(InputError, match="multiple of 8"):
        check_batch(make_mesh(MeshConfig(fsdp=8)), 12)
