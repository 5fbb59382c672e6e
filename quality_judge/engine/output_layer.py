"""A base's output layer: the whole of it while a judge is made, afterwards the few rows that a judge keeps.

Scoring never loads it: the rows a verdict is read from lie in the judge's head file. It knows nothing of prompts,
judges or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from quality_judge.bases import Base
from quality_judge.engine.quiet import quiet, said
from quality_judge.errors import BaseModelError

PROBE_IDS = (5, 3, 8, 1)
PRODUCT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OutputLayer:
    """logits = states · weightᵀ + bias. weight: float32 (V, H). bias: float32 (V,)."""

    weight: Tensor
    bias: Tensor

    def rows(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The weights, (R, H), and biases, (R,), of these tokens."""
        at = torch.tensor(ids, dtype=torch.long, device=self.weight.device)
        return self.weight[at].clone(), self.bias[at].clone()

    def logits(self, states: Tensor) -> Tensor:
        """Logits over the whole vocabulary, float32 (…, V), of states (…, H)."""
        return F.linear(states.float(), self.weight, self.bias)


def load_writer(base: Base) -> Any:
    """The base as transformers' model that writes, float32 on the CPU, in eval mode.

    Raises BaseModelError for a base that generates nothing or lacks a tensor.
    """
    from transformers import AutoModelForCausalLM

    if base.architecture != "decoder":
        raise BaseModelError(f"{base.id} is an encoder and writes nothing; this kind of judge needs a decoder")
    model: Any
    info: Any
    loader: Any = AutoModelForCausalLM
    try:
        with quiet():
            model, info = loader.from_pretrained(
                str(base.folder), dtype=torch.float32, trust_remote_code=False, use_safetensors=True,
                local_files_only=True, output_loading_info=True,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(f"{base.id} cannot be loaded as a model that writes: {said(error)}") from error
    faults = {key: sorted(map(str, info[key])) for key in ("missing_keys", "mismatched_keys") if info[key]}
    if faults:
        raise BaseModelError(f"the weights of {base.id} do not fit a model that writes: {faults}")
    return model.eval()


@torch.no_grad()
def load_generator(base: Base) -> tuple[nn.Module, OutputLayer]:
    """The base's body, float32 on the CPU, and its output layer.

    Raises BaseModelError as `load_writer`, and for a base that does more with its states than multiply.
    """
    model = load_writer(base)
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    layer = OutputLayer(head.weight.detach(), torch.zeros(len(head.weight)) if bias is None else bias.detach())
    body = model.base_model
    ids = torch.tensor([PROBE_IDS])
    expected = model(input_ids=ids, use_cache=False).logits.float()
    found = layer.logits(body(input_ids=ids, use_cache=False).last_hidden_state)
    if expected.shape != found.shape or not torch.allclose(expected, found, atol=PRODUCT_TOLERANCE, rtol=1e-3):
        raise BaseModelError(f"{base.id} scales or caps its logits; no verdict can be read from it, use kind: scalar")
    return body, layer
