"""Attention for scoring: the same arithmetic whatever stands beside a row, and the fastest kernel for the device.

transformers leaves the mask out when no row of a batch is padded, and torch then takes another kernel: a row that
fills its bucket would have other bits beside short rows than beside long ones. Here the mask is always made. In
bfloat16 on the CPU two batched matrix products are about twice as fast as torch's fused kernel, and a query's heads
that share keys are computed as one, so that no key is copied. It knows nothing of judges or batches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "quality_judge"
FUSED = "sdpa"


def set_scoring_attention(body: nn.Module) -> None:
    """Makes `body` attend as this unit says; a body without a fused kernel (MPNet, DeBERTa) keeps its own way."""
    config: Any = body.config
    if config._attn_implementation == FUSED:
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, mask)
        switch: Any = body
        switch.set_attn_implementation(NAME)


def mask(*args: Any, **settings: Any) -> Tensor:
    """The mask of transformers, bool (B, 1, T, K), never left out."""
    made = sdpa_mask(*args, **settings | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
    if made is None:
        raise AssertionError("transformers left the mask out; a row's bits would depend on its neighbours")
    return made


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, **settings: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """The mixed values, (B, T, heads, width). query: (B, heads, T, width); key, value: (B, key heads, K, width)."""
    plain = settings.get("position_bias") is None and settings.get("softcap") is None
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and attention_mask is not None and plain:
        return _products(query, key, value, attention_mask, scaling or query.shape[-1] ** -0.5), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)


def _products(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scaling: float) -> Tensor:
    """softmax(scaling · Q Kᵀ) V of each row and key head, the query heads that share it one below another."""
    rows, heads, length, width = query.shape
    groups = rows * key.shape[1]
    keys, values = key.reshape(groups, -1, width), value.reshape(groups, -1, value.shape[-1])
    scores = torch.bmm((query * scaling).reshape(groups, -1, width), keys.transpose(1, 2))
    by_head = scores.view(rows, heads, length, -1).masked_fill_(~seen, torch.finfo(scores.dtype).min)
    mixed = torch.bmm(torch.softmax(by_head, -1).view_as(scores), values)
    return mixed.view(rows, heads, length, -1).transpose(1, 2).contiguous()
