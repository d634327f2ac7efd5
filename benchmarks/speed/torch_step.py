"""The authors' preference step in plain PyTorch, for a small model: what ours is timed against.

A pair is two rows, one for each answer. The video of each row goes through the tower by itself. The
policy's logits are made at every place of the row, and a frozen copy of the model, the reference,
runs in the step without a gradient. Padding is on the right. PyTorch's side is given what it does
well: fused AdamW, the fastest of its attentions, and pixels that were normalised beforehand.
"""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"
ATTENTIONS = ("eager", "sdpa", "sdpa_causal")
IGNORED = -100


class TorchModel(torch.nn.Module):
    """Tower, projector, bilinear pooling with a newline after each row of patches, decoder."""

    def __init__(self, config: Mapping[str, Any], attention: str):
        super().__init__()
        kernel = "eager" if attention == "eager" else "sdpa"
        unread = ("layers_used",)  # all of them are
        vision_fields = {k: v for k, v in config["vision_config"].items() if k not in unread}
        vision = SiglipVisionConfig(**vision_fields, vision_use_head=False)
        fields = (
            "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
            "num_key_value_heads rms_norm_eps tie_word_embeddings"
        ).split()
        language = Qwen2Config(
            **{name: config[name] for name in fields},
            rope_parameters={"rope_type": "default", "rope_theta": config["rope_theta"]},
            use_cache=False,
        )
        for part in (vision, language):
            part._attn_implementation = kernel
        width = language.hidden_size
        self.tower = SiglipVisionModel(vision).requires_grad_(False)
        self.projector = torch.nn.Sequential(
            torch.nn.Linear(vision.hidden_size, width),
            torch.nn.GELU(),
            torch.nn.Linear(width, width),
        )
        self.newline = torch.nn.Parameter(torch.zeros(width))
        self.language = Qwen2ForCausalLM(language)
        self.stride = config["mm_spatial_pool_stride"]
        self.masked = attention != "sdpa_causal"

    def load(self, folder: Path) -> "TorchModel":
        """Weights that were exported under the authors' names; every one must find its place."""
        own = {}
        for name, tensor in load_file(folder / "model.safetensors").items():
            if name == NEWLINE:
                name = "newline"
            elif name.startswith(PROJECTOR):
                name = name.replace(PROJECTOR, "projector.")
            elif name.startswith(TOWER):
                name = name.replace(TOWER, "tower.")
            else:
                name = f"language.{name}"
            own[name] = tensor
        self.load_state_dict(own)
        return self

    def videos(self, pixels_BFCHW: torch.Tensor) -> torch.Tensor:
        """Visual tokens [B, M, D]."""
        batch, frames = pixels_BFCHW.shape[:2]
        # The residual stream: the norm after the last layer is not applied.
        patches = self.tower.embeddings(pixels_BFCHW.flatten(0, 1))
        features = self.projector(self.tower.encoder(patches).last_hidden_state)
        side = int(features.shape[1] ** 0.5)
        grid = features.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        pooled = -(-side // self.stride)
        grid = F.interpolate(grid, size=(pooled, pooled), mode="bilinear", align_corners=False)
        column = self.newline[None, :, None, None].expand(len(grid), -1, pooled, 1)
        tokens = torch.cat([grid, column], dim=3).flatten(2).transpose(1, 2)
        return tokens.reshape(batch, frames * tokens.shape[1], -1)

    def forward(self, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, T, V] at every place, fp32."""
        visual = self.videos(rows["pixels"])
        text = self.language.get_input_embeddings()(rows["tokens"])
        start = int(rows["video_start"])
        embeds = torch.cat([text[:, :start], visual, text[:, start + visual.shape[1] :]], dim=1)
        # Causal attention never looks to the right, where the padding is: no mask is needed.
        mask = rows["attention_mask"] if self.masked else None
        return self.language(inputs_embeds=embeds, attention_mask=mask).logits.float()


def two_rows(batch: Mapping[str, np.ndarray], mean: Any, std: Any) -> dict[str, torch.Tensor]:
    """The same pairs as two rows each: first all chosen, then all rejected, padded on the right."""
    rows, answers = batch["answer_mask"].shape[:2]
    length = batch["tokens"].shape[1]
    prompts = length - answers * batch["answers"].shape[2]
    made: dict[str, list[np.ndarray]] = {"tokens": [], "labels": [], "attention_mask": []}
    for k in range(answers):
        for b in range(rows):
            pad = int(np.sum(batch["branch"][b, :prompts] < 0))
            prompt = batch["tokens"][b, pad:prompts]
            answer = batch["answers"][b, k][batch["answer_mask"][b, k] > 0]
            room = (0, prompts + batch["answers"].shape[2] - len(prompt) - len(answer))
            row = np.concatenate([prompt, answer])
            labels = np.concatenate([np.full_like(prompt, IGNORED), answer])
            made["tokens"].append(np.pad(row, room))
            made["labels"].append(np.pad(labels, room, constant_values=IGNORED))
            made["attention_mask"].append(np.pad(np.ones_like(row), room))
    found = {name: torch.tensor(np.stack(arrays)).long() for name, arrays in made.items()}
    # Whole columns of padding that no row needs are not computed.
    longest = int(found["attention_mask"].sum(1).max())
    found = {name: array[:, :longest].contiguous() for name, array in found.items()}
    frames = torch.tensor(batch["frames"]).float() / 255
    pixels = ((frames - torch.tensor(mean)) / torch.tensor(std)).permute(0, 1, 4, 2, 3)
    first = batch["visual_index"][0]
    starts = np.argmax(batch["visual_index"] == 0, axis=1) - np.sum(
        batch["branch"][:, :prompts] < 0, axis=1
    )
    assert np.all(starts == starts[0]) and np.max(first) >= 0
    return found | {
        "pixels": pixels.repeat(answers, 1, 1, 1, 1).contiguous(),
        "video_start": torch.tensor(int(starts[0])),
    }


def token_logprobs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the supervised tokens' log-probs of each row."""
    targets = labels[:, 1:].clone()
    seen = targets != IGNORED
    targets[~seen] = 0
    scores = logits[:, :-1].log_softmax(-1).gather(2, targets[..., None])[..., 0]
    return (scores * seen).sum(-1)


def make_torch_step(
    config: Mapping[str, Any],
    folder: Path,
    attention: str,
    recipe: Mapping[str, Any],
    *,
    recompute: bool,
    device: str = "cpu",
    dtype: str = "float32",
) -> Callable[[Mapping[str, torch.Tensor]], float]:
    """A function of two-row batches that trains and returns the loss.

    `recipe` has beta, sft_weight, clip_norm, and `rates`, the learning rate of each step. With
    `recompute` the policy's layers are computed again going backward (gradient checkpointing).
    Weights are fp32 on `device`; with `dtype` bfloat16, products are in it and attention is the
    flash kernel.
    """
    policy = TorchModel(config, attention).load(folder).to(device)
    reference = copy.deepcopy(policy).requires_grad_(False)
    if recompute:
        policy.language.activation_checkpointing_enable()
        policy.train()  # there is no dropout; without it the switch does nothing
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    rates = iter(recipe["rates"])

    half_precision = dtype == "bfloat16"

    def products() -> torch.autocast:
        return torch.autocast(device, torch.bfloat16, enabled=half_precision)

    def compute(rows: Mapping[str, torch.Tensor]) -> float:
        with products():
            logits = policy(rows)
        with torch.no_grad(), products():
            base = token_logprobs(reference(rows), rows["labels"])
        ratios = token_logprobs(logits, rows["labels"]) - base
        half = len(ratios) // 2
        margin = recipe["beta"] * (ratios[:half] - ratios[half:])
        chosen, labels = logits[:half, :-1], rows["labels"][:half, 1:]
        sft = F.cross_entropy(chosen.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        loss = -F.logsigmoid(margin).mean() + recipe["sft_weight"] * sft
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe["clip_norm"])
        adamw.param_groups[0]["lr"] = next(rates)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return float(loss.detach())

    def step(rows: Mapping[str, torch.Tensor]) -> float:
        # Any other kernel is then an error; layers that are computed again need it too.
        flash = sdpa_kernel([SDPBackend.FLASH_ATTENTION]) if half_precision else nullcontext()
        with flash:
            return compute(rows)

    return step
