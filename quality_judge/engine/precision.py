"""The precision a model computes in: what a device can do, what files hold, and how weights get from one to the other.

Weights are memory-mapped and narrowed one at a time, so that only one is in memory twice. On the CPU the input
embeddings stay in their file, whose pages all processes of a machine share. It knows nothing of judges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from quality_judge.bases import Base

FLOATS = ("F64", "F32", "F16", "BF16")
EXACT_BUFFERS = ("inv_freq",)  # 9 bits of an angle's speed are radians off after a thousand positions


class MappedEmbedding(nn.Module):
    """An embedding whose rows are rounded as they are read: the bits of a rounded weight, without a copy of it.

    weight: (V, H), as it is stored.
    """

    def __init__(self, embedding: nn.Embedding, precision: torch.dtype) -> None:
        super().__init__()
        self.weight = embedding.weight
        self.num_embeddings = embedding.num_embeddings
        self.precision = precision

    def forward(self, ids: Tensor) -> Tensor:
        """(…, H) in the precision it was made for. ids: (…,)."""
        return F.embedding(ids, self.weight).to(self.precision)


@torch.no_grad()
def narrow(body: nn.Module, precision: torch.dtype, *, map_embedding: bool) -> None:
    """Makes `body` compute in `precision`, in place. map_embedding: leaves the input embeddings where they are mapped.

    What turns positions into angles stays float32, as in transformers' own loading.
    """
    model: Any = body
    embedding = model.get_input_embeddings()
    if map_embedding and type(embedding) is nn.Embedding and embedding.weight.dtype != precision:
        model.set_input_embeddings(MappedEmbedding(embedding, precision))
    for module in body.modules():
        if not isinstance(module, MappedEmbedding):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(precision)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and not name.endswith(EXACT_BUFFERS):
                setattr(module, name, buffer.to(precision))


def stored_precision(base: Base) -> torch.dtype:
    """bfloat16 where all of the base's numbers are stored so, else float32, which holds any of them exactly."""
    found = set()
    for path in base.weight_files:
        with safe_open(str(path), framework="pt") as tensors:
            found |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    return torch.bfloat16 if found & set(FLOATS) == {"BF16"} else torch.float32


def precision_here(device: str) -> torch.dtype:
    """The faster of float32 and bfloat16 there; the same in every process on a machine."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if _bfloat16_pays(_processor()) else torch.float32


def precisions_here(device: str) -> tuple[torch.dtype, ...]:
    """All that a model can compute in there, in reasonable time, float32 first."""
    known = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    both = precision_here(device) == torch.bfloat16 or (device == "cpu" and known)
    return (torch.float32, torch.bfloat16) if both else (torch.float32,)


def _bfloat16_pays(processor: str) -> bool:
    """Whether a processor, as /proc/cpuinfo tells of it, multiplies bfloat16 faster than float32.

    With AMX it does, and AMD's AVX512 does (Zen 4 on). Intel's AVX512 without AMX, as many virtual machines show it,
    does not: an Emerald Rapids core took twice as long for a product as in float32 (benchmarks/NOTES.md).
    """
    return "amx_bf16" in processor or ("avx512_bf16" in processor and "AuthenticAMD" in processor)


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
