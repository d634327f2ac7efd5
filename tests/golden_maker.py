"""Golden cases of any settings, made by plain PyTorch: the oracle that our numbers must equal.

Tower and decoder are the classes of transformers (fp32, eager attention); projector, pooling and
newlines are written out here. Each answer is a sequence of its own with full logits, and gradients
come from autograd: nothing of the row layout, the scans or the losses of tpo_jax is shared.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.torch_weights import randomise

VIDEO_PLACE = -200
# Prefixes of this module's parameters, and of the authors' tensors.
PREFIXES = {
    "tower.": "model.vision_tower.vision_tower.vision_model.",
    "projector.": "model.mm_projector.",
    "newline": "model.image_newline",
    "language.model.": "model.",
    "language.": "",
}
PIXELS = {
    "siglip_vision_model": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip_vision_model": (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
}
EAGER: dict[str, Any] = {"attn_implementation": "eager"}
DECODER_FIELDS = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim rms_norm_eps tie_word_embeddings""".split()

Json = Mapping[str, Any]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class CaseSettings:
    """What a made case is like; everything else about it is small and fixed."""

    tower: str = "siglip"
    merge: str = "spatial_unpad"
    newline: str = "grid"
    pool: str = "bilinear"
    stride: int = 2
    image_size: int = 75
    heads: int = 4
    kv_heads: int = 2
    head_width: int | None = None
    tied: bool = False
    vocab_rows: int = 61
    rope_theta: float = 1e6
    beta: float = 0.2
    gamma: float = 1.0
    frames: int = 2
    seed: int = 0

    def __str__(self) -> str:
        """What is not as by default."""
        plain = vars(CaseSettings())
        changed = {key: value for key, value in vars(self).items() if value != plain[key]}
        return " ".join(f"{key}={value}" for key, value in changed.items()) or "plain"


def config_json(settings: CaseSettings) -> dict[str, Any]:
    """config.json as the authors' checkpoints have it."""
    is_clip = settings.tower == "clip"
    layers = 3
    content = {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "vocab_size": settings.vocab_rows,
        "hidden_act": "silu",
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": settings.rope_theta,
        "tie_word_embeddings": settings.tied,
        "mm_vision_tower": "made",
        "mm_hidden_size": 32,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": settings.merge,
        "mm_newline_position": settings.newline,
        "mm_spatial_pool_mode": settings.pool,
        "mm_spatial_pool_stride": settings.stride,
        "vision_config": {
            "model_type": "clip_vision_model" if is_clip else "siglip_vision_model",
            "hidden_act": "quick_gelu" if is_clip else "gelu_pytorch_tanh",
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": layers,
            "layers_used": layers - is_clip,
            "num_attention_heads": 4,
            "image_size": settings.image_size,
            "patch_size": 14,
            "layer_norm_eps": 1e-5 if is_clip else 1e-6,
        },
    }
    if settings.head_width is not None:
        content["head_dim"] = settings.head_width
    return content


class Oracle(nn.Module):
    """The whole model in PyTorch."""

    def __init__(self, content: Json):
        super().__init__()
        self.content = content
        vision = dict(content["vision_config"])
        self.layers_used = vision.pop("layers_used")
        self.kind = vision.pop("model_type")
        width = content["hidden_size"]
        self.tower: Any
        if self.kind == "clip_vision_model":
            self.tower = CLIPVisionModel(CLIPVisionConfig(**vision, **EAGER))
        else:
            # The authors cut the layers off that are not used.
            vision |= {"num_hidden_layers": self.layers_used, "vision_use_head": False}
            self.tower = SiglipVisionModel(SiglipVisionConfig(**vision, **EAGER))
        self.projector = nn.Sequential(
            nn.Linear(vision["hidden_size"], width), nn.GELU(), nn.Linear(width, width)
        )
        if "unpad" in content["mm_patch_merge_type"]:
            self.newline = nn.Parameter(torch.zeros(width))
        decoder = {key: content[key] for key in DECODER_FIELDS if key in content}
        decoder["rope_parameters"] = {"rope_type": "default", "rope_theta": content["rope_theta"]}
        self.language = Qwen2ForCausalLM(Qwen2Config(**decoder, **EAGER))
        self.eval()

    def named(self) -> dict[str, nn.Parameter]:
        """Parameters by the authors' tensor names."""
        found = {}
        for name, parameter in self.named_parameters():
            ours = next(prefix for prefix in PREFIXES if name.startswith(prefix))
            found[PREFIXES[ours] + name.removeprefix(ours)] = parameter
        return found

    def tensors(self) -> Arrays:
        """Weights by the authors' tensor names."""
        return {name: weight.detach().numpy().copy() for name, weight in self.named().items()}

    def fill(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Takes these weights; they must be exactly this model's."""
        named = self.named()
        assert named.keys() == tensors.keys(), named.keys() ^ tensors.keys()
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(torch.tensor(tensors[name]))

    def features(self, frames: np.ndarray) -> torch.Tensor:
        """What goes into the projector, [F, P, C]."""
        mean, std = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in PIXELS[self.kind])
        pixels = (torch.tensor(frames).permute(0, 3, 1, 2).float() / 255 - mean) / std
        state = self.tower(pixels, output_hidden_states=True).hidden_states[self.layers_used]
        return state[:, 1:] if self.kind == "clip_vision_model" else state

    def visual_tokens(self, features: torch.Tensor) -> torch.Tensor:
        """The video as it stands in the prompt, [N, D]."""
        projected = self.projector(features)
        frames, patches, width = projected.shape
        side = round(patches**0.5)
        maps = projected.transpose(1, 2).reshape(frames, width, side, side)
        unires = self.content["mm_patch_merge_type"] == "unires"
        stride = self.content["mm_spatial_pool_stride"] if unires else 2
        mode = self.content["mm_spatial_pool_mode"]
        if mode == "bilinear":
            size = (side + stride - 1) // stride
            maps = functional.interpolate(maps, size=(size, size), mode="bilinear")
        elif mode == "average":
            maps = functional.avg_pool2d(maps, stride)
        else:
            assert mode == "max"
            maps = functional.max_pool2d(maps, stride)
        place = "no_token" if unires else self.content["mm_newline_position"]
        tokens = []
        for one in maps.permute(0, 2, 3, 1):
            for row in one:
                tokens += [*row, self.newline] if place == "grid" else [*row]
            tokens += [self.newline] if place == "frame" else []
        tokens += [self.newline] if place == "one_token" else []
        return torch.stack(tokens)

    def answer_logits(
        self, prompt: np.ndarray, visual: torch.Tensor, answer: np.ndarray
    ) -> torch.Tensor:
        """Logits [A, V] at the places that predict the answer's ids, of one plain sequence."""
        place = prompt.tolist().index(VIDEO_PLACE)
        embed = self.language.get_input_embeddings()
        before, after = (
            embed(torch.tensor(ids, dtype=torch.long))
            for ids in (prompt[:place], prompt[place + 1 :])
        )
        spliced = torch.cat([before, visual, after, embed(torch.tensor(answer, dtype=torch.long))])
        logits = self.language(inputs_embeds=spliced[None]).logits[0]
        return logits[-len(answer) - 1 : -1]


def summed_logprob(logits: torch.Tensor, answer: np.ndarray) -> torch.Tensor:
    """Log-prob of a whole answer."""
    ids = torch.tensor(answer, dtype=torch.long)
    return logits.log_softmax(dim=-1).gather(1, ids[:, None]).sum()


def oracle_numbers(
    content: Json, policy: Arrays, reference: Arrays, inputs: Mapping[str, np.ndarray]
) -> tuple[Arrays, Arrays]:
    """(outputs, gradients by tensor name) of a case."""
    model, frozen = Oracle(content), Oracle(content)
    model.fill(policy)
    frozen.fill(reference)
    answers = {name: inputs[name] for name in ("chosen", "rejected")}

    features = model.features(inputs["frames"])
    visual = model.visual_tokens(features)
    logits = {k: model.answer_logits(inputs["prompt"], visual, ids) for k, ids in answers.items()}
    sums = {name: summed_logprob(logits[name], ids) for name, ids in answers.items()}
    with torch.no_grad():
        seen = frozen.visual_tokens(frozen.features(inputs["frames"]))
        base = {
            name: summed_logprob(frozen.answer_logits(inputs["prompt"], seen, ids), ids)
            for name, ids in answers.items()
        }
    margin = (sums["chosen"] - base["chosen"]) - (sums["rejected"] - base["rejected"])
    dpo = -functional.logsigmoid(float(inputs["beta"]) * margin)
    chosen_ids = torch.tensor(answers["chosen"], dtype=torch.long)
    sft = functional.cross_entropy(logits["chosen"], chosen_ids)
    loss = dpo + float(inputs["gamma"]) * sft
    loss.backward()

    outputs = {"vision_features": features, "visual_tokens": visual}
    outputs |= {f"{name}_logits": found for name, found in logits.items()}
    outputs |= {f"policy_{name}_logp": found[None] for name, found in sums.items()}
    outputs |= {f"reference_{name}_logp": found[None] for name, found in base.items()}
    outputs |= {"dpo_loss": dpo, "sft_loss": sft, "loss": loss}
    grads = {k: p.grad.numpy().copy() for k, p in model.named().items() if p.grad is not None}
    return {name: found.detach().numpy() for name, found in outputs.items()}, grads


def write_case(folder: Path, settings: CaseSettings) -> Path:
    """Makes a case of random weights, frames and ids; returns its folder."""
    rng = np.random.default_rng(settings.seed)
    content = config_json(settings)
    policy, reference = (
        randomise(Oracle(content), seed=2 * settings.seed + number).tensors() for number in (1, 2)
    )
    size, rows = settings.image_size, settings.vocab_rows
    inputs: dict[str, Any] = {
        "frames": rng.integers(0, 256, (settings.frames, size, size, 3), np.uint8),
        "prompt": np.insert(rng.integers(0, rows, 9), 3, VIDEO_PLACE),
        "chosen": rng.integers(0, rows, 5),
        "rejected": rng.integers(0, rows, 7),
        "beta": np.float64(settings.beta),
        "gamma": np.float64(settings.gamma),
    }
    outputs, grads = oracle_numbers(content, policy, reference, inputs)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(content))
    save_file(policy, folder / "model.safetensors")
    save_file(reference, folder / "reference.safetensors")
    save_file(grads, folder / "grads.safetensors")
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "outputs.npz", **outputs)  # type: ignore[arg-type]
    return folder
