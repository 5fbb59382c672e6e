"""Attention for scoring: the same arithmetic whatever stands beside a row, and the fastest kernel for the device.

transformers leaves the mask out when no row of a batch is padded, and torch then takes another kernel: a row that
fills its bucket would have other bits beside short rows than beside long ones. Here the mask is always made. In
bfloat16 on the CPU two batched matrix products are about twice as fast as torch's fused kernel, and a query's heads
that share keys are computed as one, so that no key is copied. It knows nothing of judges or batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

NAME = "quality_judge"
FUSED = "sdpa"
MOST_SCORES = 800_000  # 1.6 MB of bfloat16; whole, 9 heads over 8,192 tokens would take 1.2 GB


def set_scoring_attention(body: nn.Module) -> None:
    """Makes `body` attend as this unit says; a body without a fused kernel (MPNet, DeBERTa) keeps its own way."""
    config: Any = body.config
    if config._attn_implementation == FUSED:
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, mask)
        switch: Any = body
        switch.set_attn_implementation(NAME)


def mask(*args: Any, **settings: Any) -> Tensor:
    """What is added to the scores, (B, 1, T, K): 0, or the lowest number there is. Never left out."""
    made: Tensor | None = eager_mask(*args, **settings | {"allow_is_bidirectional_skip": False})
    if made is None:
        raise AssertionError("transformers left the mask out; a row's bits would depend on its neighbours")
    return made


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, **settings: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """The mixed values, (B, T, heads, width). query: (B, heads, T, width); key, value: (B, key heads, K, width)."""
    plain = settings.get("position_bias") is None and settings.get("softcap") is None
    if plain and attention_mask is not None and query.device.type == "cpu" and _bfloat16(query, attention_mask):
        return _products(query, key, value, attention_mask, scaling or query.shape[-1] ** -0.5), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)


def _products(query: Tensor, key: Tensor, value: Tensor, added: Tensor, scaling: float) -> Tensor:
    """softmax(scaling · Q Kᵀ + added) V, (B, T, heads, width), the query heads that share a key head as one.

    Shapes are those of `attend`; added: (B, 1, T, K). Some rows at a time, or some heads of one, as MOST_SCORES allows:
    the same bits as all at once.
    """
    (rows, heads, length, width), (key_heads, seen) = query.shape, key.shape[1:3]
    queries = (query * scaling).reshape(rows, key_heads, -1, width)
    mixed = query.new_empty(rows, key_heads, queries.shape[2], value.shape[-1])
    for part in _parts(rows, key_heads, most=MOST_SCORES // (queries.shape[2] * seen)):
        some, keys, values = (tensor[part].flatten(0, 1) for tensor in (queries, key, value))
        scores = torch.bmm(some, keys.transpose(1, 2))
        hidden = added[part[0]]
        if hidden[..., 0, -1].any() or hidden.any():  # adding nothing changes no bit; a causal mask tells by its corner
            scores.view(len(hidden), -1, length, seen).add_(hidden)
        mixed[part] = torch.bmm(torch.softmax(scores, -1), values).view_as(mixed[part])
    return mixed.view(rows, heads, length, -1).transpose(1, 2).contiguous()


def _bfloat16(*tensors: Tensor) -> bool:
    return all(tensor.dtype == torch.bfloat16 for tensor in tensors)


def _parts(rows: int, heads: int, *, most: int) -> Iterator[tuple[slice, slice]]:
    """Rows and heads that are computed together: whole rows, or of one row `most` heads; always at least one head."""
    rows_each, heads_each = max(1, most // heads), max(1, min(most, heads))
    for row in range(0, rows, rows_each):
        for head in range(0, heads, heads_each):
            yield slice(row, row + rows_each), slice(head, head + heads_each)
