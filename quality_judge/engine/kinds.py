"""What a judge computes from hidden states: one raw number for quality, one more for each category.

`ScalarModel` is a pretrained body, a pooling and a linear head. It knows nothing of tokenizers, files or losses.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

# Means after each third of the layers beat the last layer's by .01-.11 ROC AUC under a linear head on four label sets,
# most on form (grammar, clean sentences): the last layer of a sentence encoder keeps the topic and loses the rest.
POOLED_LAYERS = 3
Pooling = Literal["layers", "last"]


class ScalarModel(nn.Module):
    """outputs[:, 0] is the raw quality score; outputs[:, 1:] are the categories' raw scores (higher: it applies)."""

    def __init__(self, body: nn.Module, hidden_size: int, outputs: int, pooling: Pooling) -> None:
        super().__init__()
        self.body = body
        self.pooling = pooling
        self.head = nn.Linear(hidden_size * (POOLED_LAYERS if pooling == "layers" else 1), outputs)
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
        """Pooled hidden states, float32 (B, W).

        `layers`: the means over the row's tokens after each third of the layers, side by side, the last layer's last;
        W is POOLED_LAYERS times the hidden size. `last`: the last token's state, W the hidden size.
        """
        mask = torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]
        deep = self.pooling == "layers"
        said = self.body(input_ids=ids, attention_mask=mask.long(), use_cache=False, output_hidden_states=deep)
        if not deep:
            return said.last_hidden_state[torch.arange(len(ids), device=ids.device), lengths - 1].float()
        layers = len(said.hidden_states) - 1  # the first are the embeddings
        chosen = [said.hidden_states[layers * third // POOLED_LAYERS] for third in range(1, POOLED_LAYERS + 1)]
        return torch.cat([(state.float() * mask[:, :, None]).sum(1) / lengths[:, None] for state in chosen], dim=1)
