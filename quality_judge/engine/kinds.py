"""What a judge computes from hidden states: one raw number for quality, one more for each category.

`ScalarModel` is a pretrained body, a pooling and a linear head. It knows nothing of tokenizers, files or losses.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class ScalarModel(nn.Module):
    """outputs[:, 0] is the raw quality score; outputs[:, 1:] are the categories' raw scores (higher: it applies)."""

    def __init__(self, body: nn.Module, hidden_size: int, outputs: int, pooling: Literal["mean", "last"]) -> None:
        super().__init__()
        self.body = body
        self.pooling = pooling
        self.head = nn.Linear(hidden_size, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Outputs, float32 (B, outputs). ids: (B, T), padded on the right. lengths: (B,)."""
        pooled = self.pooled(ids, lengths)
        with torch.autocast(ids.device.type, enabled=False):  # a head in bfloat16 ties a tenth of all rows
            # Not self.head(pooled): a matrix-vector kernel adds up a row's products in an order that depends on the
            # row's place in the batch, and its score would depend on its neighbours.
            return (pooled[:, None, :] * self.head.weight).sum(-1) + self.head.bias

    def pooled(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Pooled hidden states, float32 (B, H): the mean over the row's tokens, or its last token."""
        mask = torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]
        hidden = self.body(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state.float()
        if self.pooling == "last":
            return hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        return (hidden * mask[:, :, None]).sum(1) / lengths[:, None]
