"""What this machine could do at most: FLOPs that rows need, and the fastest matrix product in the same precision.

A row's FLOPs are counted for its own tokens alone, no padding: every matrix product of every layer, and attention over
the row itself (for a decoder over what stands before, the shared prefix included).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Shape:
    """A transformer's sizes. mlp_products: matrices of H × F in each layer, 2 or, with a gate, 3.

    query_width, key_width: what a token's queries and keys of all heads take; neither need be the hidden size.
    """

    layers: int
    hidden: int
    inner: int
    query_width: int
    key_width: int
    mlp_products: int
    causal: bool


def shape_of(config) -> Shape:
    """The sizes in a transformers config of an encoder like BERT or a decoder like Llama."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    decoder = hasattr(config, "num_key_value_heads")
    return Shape(
        config.num_hidden_layers, config.hidden_size, config.intermediate_size, width * heads,
        width * getattr(config, "num_key_value_heads", heads), 3 if decoder else 2, decoder,
    )  # fmt: skip


def flops(shape: Shape, lengths: np.ndarray, *, before: int = 0) -> float:
    """FLOPs of a forward pass over rows of `lengths` tokens, each behind `before` shared ones that are known."""
    n = lengths.astype(float)
    linear = 2 * shape.hidden * (2 * shape.query_width + 2 * shape.key_width + shape.mlp_products * shape.inner)
    seen = before + (n + 1) / 2 if shape.causal else n
    return float(shape.layers * (linear * n + 4 * shape.query_width * n * seen).sum())


def matmul_peak(dtype: torch.dtype, device: str = "cpu", *, size: int = 2048, seconds: float = 1.0) -> float:
    """The most FLOP/s of a square matrix product seen within `seconds`, by torch's own threads."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        for _ in range(3):
            a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, 3 * 2 * size**3 / (time.perf_counter() - started))
    return best
