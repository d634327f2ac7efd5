"""Makes golden_trl.json: what TRL's own DPO trainer computes from given log-probs.

Run by hand, with TRL beside torch and transformers (TRL is no dependency of this project):

    python tests/preference/make_golden_trl.py

TRL's `DPOTrainer._compute_loss` runs as it is, on a stand-in for the trainer: its models return
the log-probs that are in the file. The gradient is that of the policy's per-token log-probs.
"""

import json
import os
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

PATH = Path(__file__).with_name("golden_trl.json")
PAIRS, TOKENS = 5, 6
# (chosen, rejected) tokens of each pair: even, longer, shorter, one token.
LENGTHS = ((3, 3), (6, 2), (1, 5), (4, 1), (2, 6))

# Our name and options, TRL's loss_type and options. In this version of TRL "sigmoid" takes no
# label smoothing; "aot" on one pair is that formula, since sorting one pair changes nothing.
CASES: list[dict[str, Any]] = [
    {"preference": "sigmoid", "beta": 0.3, "trl": {"loss_type": "sigmoid"}},
    {
        "preference": "sigmoid",
        "beta": 0.3,
        "label_smoothing": 0.2,
        "trl": {"loss_type": "aot", "label_smoothing": 0.2, "pair_by_pair": True},
    },
    {"preference": "ipo", "beta": 0.7, "trl": {"loss_type": "ipo"}},
    {"preference": "hinge", "beta": 0.4, "trl": {"loss_type": "hinge"}},
    {
        "preference": "robust",
        "beta": 0.3,
        "label_smoothing": 0.1,
        "trl": {"loss_type": "robust", "label_smoothing": 0.1},
    },
    {
        "preference": "length_desensitized",
        "beta": 0.3,
        "length_alpha": 0.4,
        "trl": {"loss_type": "sigmoid", "ld_alpha": 0.4},
    },
    {
        "preference": "length_desensitized",
        "beta": 0.3,
        "length_alpha": 0.0,
        "trl": {"loss_type": "sigmoid", "ld_alpha": 0.0},
    },
    {"preference": "length_normalized", "beta": 2.0, "trl": {"loss_type": "sigmoid_norm"}},
    {"sft_reduction": "token_mean", "trl": {"loss_type": "sft"}},
    {
        "sft_reduction": "pair_mean",
        "trl": {"loss_type": "sft", "pair_by_pair": True},
    },
]


class GivenModel(torch.nn.Module):
    """Returns log-probs that are given; what TRL only logs is zero."""

    is_gradient_checkpointing = False

    def __init__(self, logps: torch.Tensor) -> None:
        super().__init__()
        self.logps = logps

    def forward(self, **inputs: Any) -> SimpleNamespace:
        zeros = torch.zeros_like(self.logps)
        return SimpleNamespace(
            log_probs=self.logps,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
            log_sum_sq_probs=zeros,
        )


def run_trl(policy: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor, case: dict) -> Any:
    """(loss, metrics) of TRL for log-probs [pairs, 2, tokens]."""
    from trl import DPOTrainer

    options = {key: value for key, value in case["trl"].items() if key != "pair_by_pair"}
    rows = lambda x: torch.cat([x[:, 0], x[:, 1]])  # noqa: E731  chosen rows, then rejected
    # One place of prompt before the completion, which nothing predicts.
    completion = torch.nn.functional.pad(rows(mask), (1, 0)).long()
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x
    )
    model = GivenModel(rows(policy))
    trainer = SimpleNamespace(
        accelerator=accelerator,
        model=model,
        ref_model=GivenModel(rows(reference)),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        beta=case.get("beta", 0.1),
        ld_alpha=options.get("ld_alpha"),
        label_smoothing=options.get("label_smoothing", 0.0),
        loss_types=[options["loss_type"]],
        loss_weights=[1.0],
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        maybe_activation_offload_context=nullcontext(),
    )
    inputs = {
        "input_ids": torch.zeros_like(completion),
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
    }
    loss = DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
    return loss, {name: values[-1] for name, values in trainer._metrics["train"].items()}


def run_case(
    policy: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor, case: dict
) -> dict[str, Any]:
    """A case with TRL's loss, gradient and metrics."""
    policy = policy.clone().requires_grad_()
    if case["trl"].get("pair_by_pair"):
        parts = [
            run_trl(policy[i : i + 1], mask[i : i + 1], reference[i : i + 1], case)[0]
            for i in range(PAIRS)
        ]
        loss, seen = torch.stack(parts).mean(), {}
    else:
        loss, seen = run_trl(policy, mask, reference, case)
    loss.backward()
    metrics = {
        ours: seen[theirs]
        for ours, theirs in (
            ("reward_chosen", "rewards/chosen"),
            ("reward_rejected", "rewards/rejected"),
            ("reward_margin", "rewards/margins"),
            ("reward_accuracy", "rewards/accuracies"),
        )
        if theirs in seen and "preference" in case
    }
    assert policy.grad is not None
    return case | {"loss": loss.item(), "metrics": metrics, "gradient": policy.grad.tolist()}


def main() -> None:
    """Write the file."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import trl

    generator = torch.Generator().manual_seed(0)
    places = torch.arange(TOKENS)
    mask = torch.stack(
        [torch.stack([(places < length).float() for length in pair]) for pair in LENGTHS]
    )
    draw = lambda: -torch.rand(PAIRS, 2, TOKENS, generator=generator, dtype=torch.float64)  # noqa: E731
    policy, reference = 4 * draw() * mask, 4 * draw() * mask
    golden = {
        "made_by": "tests/preference/make_golden_trl.py",
        "trl": trl.__version__,
        "torch": torch.__version__,
        "policy": policy.tolist(),
        "reference": reference.tolist(),
        "mask": mask.tolist(),
        "cases": [run_case(policy, mask, reference, case) for case in CASES],
    }
    PATH.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
