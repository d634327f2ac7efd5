"""Tunix's DPO step, and the forward pass of its reference, compiled for a TPU slice from shapes.

Run by `plan_vs_tunix.py` with an interpreter that has google-tunix and libtpu; imports nothing of
this project:

    python tunix_step.py RESULT.json < request.json

The step is Tunix's own: `DPOTrainer.create_train_step_fn` over its `Qwen2`, jitted as
`PeftTrainer.jit_train_and_eval_step` does it (the optimizer is donated, the model is not), and its
inputs are what `DPOTrainer._prepare_inputs` makes of tokens. Parameters and moments lie as Tunix's
`ShardingConfig` says. Layers are not looped over: Tunix has no option for it.

Tunix leaves out its constraints on activations where `jax.devices()[0]` is a CPU. So `jax.devices`
gives the devices of the slice while the step is traced, as it would there.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tunix.models.qwen2 import model as qwen2
from tunix.sft.dpo import dpo_trainer

DTYPES = {"bfloat16": jnp.bfloat16, "float32": jnp.float32}
REFUSALS = ("RESOURCE_EXHAUSTED", "Ran out of memory", "exceeds available HBM")


def lay_mesh(request: dict[str, Any]) -> Mesh:
    """All devices of the slice under `fsdp`; Tunix's specs also name `tp`."""
    where = topologies.get_topology_desc(platform="tpu", topology_name=request["topology"])
    return Mesh(np.array(where.devices).reshape(-1, 1), ("fsdp", "tp"))


def model_config(request: dict[str, Any]) -> qwen2.ModelConfig:
    """Tunix's Qwen2.5-7B, whose shapes are those of Qwen2-7B, computing in bf16."""
    config = qwen2.ModelConfig.qwen2p5_7b()
    config.num_layers = request["layers"]
    config.remat_config = qwen2.RematConfig[request["remat"]]
    config.dtype = jnp.bfloat16
    config.param_dtype = DTYPES[request["state"]]
    config.use_flash_attention = True
    config.flash_attention_block_size = request["block"]
    return config


def make_trainer(config: qwen2.ModelConfig) -> tuple[Any, nnx.Module, nnx.Optimizer]:
    """Tunix's trainer, and shapes of the model and the optimizer that it made.

    The reference's log-probs come with the batch, so none is given here.
    """
    made = []
    adamw = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(5e-7))

    def make() -> tuple[nnx.Module, nnx.Optimizer]:
        trainer = dpo_trainer.DPOTrainer(
            model=qwen2.Qwen2(config, rngs=nnx.Rngs(0)),
            ref_model=None,
            optimizer=adamw,
            training_config=dpo_trainer.DPOTrainingConfig(eval_every_n_steps=1000, beta=0.2),
        )
        made.append(trainer)
        return trainer.model, trainer.optimizer

    model, optimizer = nnx.eval_shape(make)
    return made[0], model, optimizer


def on_mesh(module: Any, mesh: Mesh) -> Any:
    """The module's shapes, each with where Tunix's own specs put it."""
    graph, state = nnx.split(module)
    placed = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        state,
        nnx.get_named_sharding(state, mesh),
    )
    return nnx.merge(graph, placed)


def device_bytes(tree: Any) -> int:
    """Of one device's part."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if hasattr(leaf, "sharding")
    )


def example(request: dict[str, Any], mesh: Mesh) -> dpo_trainer.TrainExample:
    """What the trainer prepares of a batch: chosen rows, then rejected ones, each with its prompt.

    Masks are booleans, the smallest that it takes.
    """
    rows, answer = 2 * request["pairs"], request["answer_tokens"]
    length = request["prompt_tokens"] + answer

    def shaped(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec("fsdp", *(None,) * (len(shape) - 1))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    return dpo_trainer.TrainExample(
        input_ids=shaped((rows, length), jnp.int32),
        positions=shaped((rows, length), jnp.int32),
        attention_mask=shaped((rows, length, length), jnp.bool_),
        ref_chosen_logps=shaped((rows // 2,), jnp.float32),
        ref_rejected_logps=shaped((rows // 2,), jnp.float32),
        completion_mask=shaped((rows, answer), jnp.bool_),
        logits_to_keep=answer,
    )


def lower(request: dict[str, Any], mesh: Mesh) -> tuple[Any, dict[str, int]]:
    """(the lowered program, bytes of a device that are held but are no argument of it)."""
    config = model_config(request)
    trainer, model, optimizer = make_trainer(config)
    model, optimizer = on_mesh(model, mesh), on_mesh(optimizer, mesh)
    batch = example(request, mesh)
    # Splash attention does not read the mask, and jit drops what is not read: the array stays.
    beside = {"mask": device_bytes(batch.attention_mask)}
    if request["part"] == "reference":
        lowered = dpo_trainer.compute_logps.lower(
            model,
            batch.input_ids,
            batch.positions,
            batch.attention_mask,
            batch.logits_to_keep,
            batch.completion_mask,
        )
    else:
        step = nnx.jit(trainer.create_train_step_fn(), donate_argnames=("optimizer",))
        lowered = step.lower(model, optimizer, batch)
        # Of the frozen copy, in bf16 whatever the state is.
        beside["reference"] = sum(
            int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * 2
            for leaf in jax.tree.leaves(nnx.state(model))
        )
    return lowered, beside


def compile_request(request: dict[str, Any]) -> dict[str, Any]:
    """What the compiler says; bytes are those of one device."""
    mesh = lay_mesh(request)
    devices = list(mesh.devices.flat)
    start = time.monotonic()
    with mesh, mock.patch.object(jax, "devices", lambda *_: devices):
        lowered, beside = lower(request, mesh)
    lowered_at = time.monotonic()
    found: dict[str, Any] = {
        "versions": {name: version(name) for name in ("google-tunix", "jax", "libtpu")},
        "beside": beside,
        "refused": None,
    }
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not any(sign in str(error) for sign in REFUSALS):
            raise
        found["refused"] = str(error)[:3000]
    else:
        memory = getattr(compiled, "compiled", compiled).memory_analysis()
        found["alive"] = int(memory.peak_memory_in_bytes)
        for name in ("argument", "output", "alias", "temp"):
            found[name] = int(getattr(memory, f"{name}_size_in_bytes"))
    ended = time.monotonic()
    return {**found, "seconds": {"lower": lowered_at - start, "compile": ended - lowered_at}}


def main() -> None:
    """Reads the request from stdin, and writes what came of it to the file that is named."""
    found = compile_request(json.load(sys.stdin))
    Path(sys.argv[1]).write_text(json.dumps(found))
    os._exit(0)  # threads of the compiler are not waited for


if __name__ == "__main__":
    main()
