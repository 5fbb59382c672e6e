"""What every row of a verdict judge begins with (the rubric's prompt), computed once for many rows.

A causal model's keys and values of a place depend on what stands before it alone, so those of the prefix serve all
rows: in scoring once for a loaded model, in training once for a batch, whose gradients then flow back through them.
They are computed by themselves, in one fixed shape, and only read afterwards: whatever the layout, every row meets the
same bits. It knows nothing of judges, verdicts or texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer


class _Shared(DynamicLayer):
    """Keys and values of one layer, for one row, put before those of any number of rows and never written to."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Those of the prefix and, behind them, those of each row, (B, heads, P + T, width)."""
        return self._before(self.keys, key_states), self._before(self.values, value_states)

    @staticmethod
    def _before(shared: Tensor | None, own: Tensor) -> Tensor:
        if shared is None:
            raise AssertionError("a shared layer holds keys and values from the start")
        return torch.cat([shared.expand(len(own), -1, -1, -1), own], dim=-2)


@torch.inference_mode()
def shared_prefix(body: nn.Module, ids: Sequence[int]) -> Cache | None:
    """What `begun_with` gives, to be read by several threads at once.

    One thread computes it, so that its bits do not depend on the thread count.
    """
    device = next(body.parameters()).device
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return begun_with(body, torch.tensor([list(ids)], device=device))
    finally:
        torch.set_num_threads(threads)


def begun_with(body: nn.Module, ids: Tensor) -> Cache | None:
    """What `body` may be given as past key values for every row that begins with `ids`, (1, P).

    None where that is no plain list of all keys and values: in a body with a window, a state or no cache, rows are
    computed whole.
    """
    said = body(input_ids=ids, use_cache=True)
    layers = getattr(getattr(said, "past_key_values", None), "layers", [])
    if not layers or any(type(layer) is not DynamicLayer or layer.get_seq_length() != ids.shape[1] for layer in layers):
        return None
    return Cache(layers=[_Shared(layer.keys, layer.values) for layer in layers])


def without_prefix(buckets: Sequence[tuple[int, int]], shared: int) -> list[tuple[int, int]]:
    """The shapes of batches whose rows lack their first `shared` ids: as many tokens as before, of more rows."""
    budget = max(length * rows for length, rows in buckets)
    left = [length - shared for length, _ in buckets if length > shared]
    return [(length, max(1, budget // length)) for length in left]
