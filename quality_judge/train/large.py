"""What lets a large base or long rows be trained in little memory.

Attention that keeps no scores, weights in 4 or 8 bits under LoRA, activations computed a second time.

A quantised base is trained through, never saved: the judge names the base itself, and its adapter is merged into the
full weights when it scores (QLoRA, Dettmers et al. 2023). It knows nothing of data or losses.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any, Literal

import torch
from torch import nn

from quality_judge.bases import Base
from quality_judge.config import TrainConfig
from quality_judge.errors import ConfigError, MissingExtra

LAYERS, HEADS = ("num_hidden_layers", "n_layer", "num_layers"), ("num_attention_heads", "n_head")
BATCH_TEXTS = 16
KEPT_OF_A_SCORE = 16  # bytes: as a product, masked, as a share and rounded, in float32 each
MOST_KEPT_BYTES = 8 << 30


def training_attention(base: Base, max_tokens: int, device: str) -> str:
    """transformers' name of the attention to train with on rows of at most `max_tokens`, the prompt counted.

    `eager` on the CPU, where the backward pass of torch's fused attention takes as long as all the rest of a step;
    `sdpa` on a GPU, and where eager would keep more than MOST_KEPT_BYTES of scores for the way back.
    """
    config = base.config.get("text_config", base.config)
    layers, heads = (next((config[name] for name in names if name in config), 1) for names in (LAYERS, HEADS))
    kept = BATCH_TEXTS * layers * heads * max_tokens**2 * KEPT_OF_A_SCORE
    return "eager" if device == "cpu" and kept <= MOST_KEPT_BYTES else "sdpa"


def quantization(config: TrainConfig) -> Any | None:
    """bitsandbytes' settings for `load_body`, None when the weights stay as they are.

    Raises ConfigError on a machine without a GPU, where it is slow and bitsandbytes may fetch kernels from the hub.
    """
    if config.quantize_bits is None:
        return None
    if not torch.cuda.is_available():
        raise ConfigError(
            f"train.quantize_bits is {config.quantize_bits} and this machine has no GPU; leave it out, or train on one"
        )
    return weights_in(config.quantize_bits)


def weights_in(bits: Literal[4, 8]) -> Any:
    """transformers' settings for weights in that many bits: 4-bit normal floats, or 8-bit integers with outliers."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "gpu")
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it would tell of its casts at every multiplication
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip


def recompute_activations(body: nn.Module) -> None:
    """Makes each layer keep its input only and compute the rest again going back: less memory, a third more time.

    transformers does so in training mode alone. Only the layer itself is put into it: what is inside stays in
    evaluation mode, so that there is no dropout and the gradients are those without it.
    """
    if not getattr(body, "supports_gradient_checkpointing", False):
        raise ConfigError(f"{type(body).__name__} cannot recompute activations; leave train.gradient_checkpointing out")
    body.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    for module in body.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
