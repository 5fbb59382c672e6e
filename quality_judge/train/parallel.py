"""Several processes that train one judge: each takes its share of every batch, and the gradients are added up.

    accelerate launch --multi_gpu --num_processes 2 training/train_judge.py …

(on CPUs: torchrun --nproc_per_node 2 …). Every process holds the whole model and takes the same steps, so that all end
with the same judge; the first saves it. What a loss averages over a batch (the KL of `kto_relative`) is averaged over
a process's own share. For one machine. It knows nothing of models or files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quality_judge.engine.devices import default_device


@dataclass(frozen=True)
class Peers:
    """This process among those that train together: `rank` of `count`."""

    rank: int
    count: int

    @property
    def leads(self) -> bool:
        """Whether this process is the one that speaks and saves."""
        return self.rank == 0

    def share(self, unit: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, float]:
        """Those of `rows`, text indices (B,), that this process takes, units whole; and what part of the units.

        unit: the unit of every text, int64 (n,).
        """
        if self.count == 1:
            return rows, 1.0
        units = np.unique(unit[rows])
        mine = units[self.rank :: self.count]
        return rows[np.isin(unit[rows], mine)], len(mine) / len(units)

    def add_up(self, parameters: Iterable[Tensor], loss: Tensor | float) -> float:
        """Replaces each gradient by its sum over the processes; the loss summed likewise."""
        if self.count == 1:
            return float(loss)
        own = list(parameters)
        device = own[0].device
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
        flat = torch.cat([*(part.flatten().float() for part in parts), torch.tensor([float(loss)], device=device)])
        torch.distributed.all_reduce(flat)
        at = 0
        for parameter in own:
            size = parameter.numel()
            parameter.grad = flat[at : at + size].view_as(parameter).to(parameter.dtype)
            at += size
        return float(flat[-1])

    def agreed(self, value: float) -> float:
        """What the first process says `value` is, so that all stop at the same epoch."""
        if self.count == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=default_device())
        torch.distributed.broadcast(told, 0)
        return float(told)


def peers() -> Peers:
    """This process among those started with it by `accelerate launch` or `torchrun`; or alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return Peers(0, 1)
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Peers(state.process_index, state.num_processes)
