"""Which of a base's weights are trained, and how they are taken out again: LoRA through peft, or all of them.

It knows nothing of losses or data. `engine.weights` merges what is extracted here, without peft.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from quality_judge.config import TrainConfig
from quality_judge.engine.weights import FULL, LORA_A, LORA_B

PEFT_PREFIX = "base_model.model."
WHOLE = ("full", "contrastive")


def prepared(body: nn.Module, method: str, config: TrainConfig) -> nn.Module:
    """`body` with the parameters of `method` ready to train: LoRA factors on every linear layer, or everything."""
    if method in WHOLE:
        for name, parameter in body.named_parameters():
            parameter.requires_grad_("embeddings" not in name and "embed_tokens" not in name)
        return body
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(config.seed)
        warnings.simplefilter("ignore")
        return get_peft_model(body, settings)


def extracted(body: nn.Module, method: str) -> dict[str, Tensor]:
    """The trained tensors of `body`, float32 on the CPU, named as `engine.weights` reads them."""
    trained = {name: p.detach().float().cpu().contiguous() for name, p in body.named_parameters() if p.requires_grad}
    if method in WHOLE:
        return {FULL + name: tensor for name, tensor in trained.items()}
    tensors = {}
    for name, tensor in trained.items():
        name = name.removeprefix(PEFT_PREFIX)
        for part, prefix in ((".lora_A.default.weight", LORA_A), (".lora_B.default.weight", LORA_B)):
            if name.endswith(part):
                tensors[prefix + name.removesuffix(part)] = tensor
    return tensors


def extracted_of_writer(model: nn.Module) -> dict[str, Tensor]:
    """As `extracted`, the LoRA factors of a model that writes, named as in its body alone."""
    body = model.get_base_model().base_model_prefix + "."  # type: ignore[operator]
    tensors = extracted(model, "lora")
    return {
        prefix + name.removeprefix(prefix).removeprefix(body): tensor
        for name, tensor in tensors.items()
        for prefix in (LORA_A, LORA_B)
        if name.startswith(prefix)
    }
