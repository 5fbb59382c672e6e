"""Linear layers laid out for this processor: the same products, without turning the weights round for every batch.

oneDNN multiplies blocks of a weight; a plain layer has it cut them anew at each call. Here that is done once, and where
a GELU follows a layer it is computed before the product is rounded and written. It is for the CPU, and scoring only: a
packed layer cannot be trained or saved. It knows nothing of judges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

# A packed weight is a copy for each process, where in float32 all of a machine share the file's own pages. MiniLM's are
# 43 MB and 1.05 times as fast packed; SmolLM2's would be 425.
MOST_FLOAT32_BYTES = 128 << 20


class PackedLinear(nn.Module):
    """`activation(x Wᵀ + b)` of a linear layer, whose own weight may be dropped.

    tokens: how many rows x will have, for which the blocks are chosen; others are right too. activation: `none` or
    `gelu`.
    """

    def __init__(self, layer: nn.Linear, *, tokens: int, activation: str = "none") -> None:
        super().__init__()
        self.weight = torch.empty_like(layer.weight, device="meta")  # some models ask for its type
        self.bias = None if layer.bias is None else layer.bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), tokens)
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(…, out_features) of x, (…, in_features)."""
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, self._activation, [], "none")
        return found


def packable(body: nn.Module, device: str) -> bool:
    """Whether the layers of `body` can be packed there, and should be."""
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    weights = [layer.weight for layer in body.modules() if type(layer) is nn.Linear]
    if {weight.dtype for weight in weights} == {torch.bfloat16}:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return sum(weight.nbytes for weight in weights) <= MOST_FLOAT32_BYTES


def pack_linears(body: nn.Module, *, tokens: int) -> None:
    """Packs every linear layer in `body`, in place."""
    for module in list(body.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                packed = PackedLinear(layer, tokens=tokens, activation=_fused(module, name))
                setattr(module, name, packed)


def _fused(module: Any, name: str) -> str:
    """`gelu` where `module` is a layer and a GELU on what it gives, as in BERT; the GELU is then taken out."""
    activation = getattr(module, "intermediate_act_fn", None)
    if name != "dense" or not isinstance(activation, GELUActivation | nn.GELU):
        return "none"
    module.intermediate_act_fn = nn.Identity()
    return "gelu"
