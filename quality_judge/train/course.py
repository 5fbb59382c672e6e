"""Where one training stands after an epoch, kept so that a killed run goes on as if nothing had happened.

It knows nothing of models but their trained tensors, and nothing of folds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quality_judge.train.checkpoint import Checkpoint
from quality_judge.train.parallel import peers

NOW, BEST, MOMENT = "now.", "best.", "moment."


class Course:
    """epoch, step: how many are done. best: the trained tensors at `best_epoch`. history: (loss, score) of each epoch.

    With a checkpoint it begins where that one stands: tensors, optimiser, schedule and random numbers are put back.
    """

    def __init__(
        self, trained: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, schedule: Any,
        random: np.random.Generator, checkpoint: Checkpoint | None,
    ) -> None:  # fmt: skip
        self.trained, self.optimiser, self.schedule, self.random = trained, optimiser, schedule, random
        self.checkpoint = checkpoint
        self.epoch = self.step = self.best_epoch = 0
        self.best_score = -math.inf
        self.best: dict[str, Tensor] = {}
        self.history: list[tuple[float, float]] = []
        self.finished = False
        self._put_back()

    def goes_on(self, epochs: int, patience: int) -> bool:
        """Whether another of `epochs` is worth it: not finished, and the best is not `patience` epochs ago."""
        return not self.finished and self.epoch < epochs and self.epoch - self.best_epoch < patience

    def note(self, loss: float, score: float) -> None:
        """An epoch is over: remembers it, and its tensors when they are the best so far."""
        self.epoch += 1
        self.history.append((loss, score))
        if score > self.best_score:
            self.best_score, self.best_epoch = score, self.epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self.trained.items()}
        if self.checkpoint and self.checkpoint.due() and peers().leads:
            self.checkpoint.save(self._tensors(), self._values())

    @torch.no_grad()
    def finish(self) -> None:
        """Leaves the trained tensors at their best."""
        for name, tensor in self.trained.items():
            tensor.copy_(self.best[name])
        if self.checkpoint and not self.finished and peers().leads:
            self.finished = True
            self.checkpoint.save({BEST + name: tensor for name, tensor in self.best.items()}, self._values())

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {NOW + name: tensor for name, tensor in self.trained.items()}
        tensors |= {BEST + name: tensor for name, tensor in self.best.items()}
        for at, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"{MOMENT}{at}.{name}": tensor for name, tensor in state.items()}
        return tensors

    def _values(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch, "step": self.step, "best_epoch": self.best_epoch, "best_score": self.best_score,
            "history": self.history, "finished": self.finished, "random": self.random.bit_generator.state,
            "schedule": self.schedule.state_dict(), "rates": [group["lr"] for group in self.optimiser.param_groups],
        }  # fmt: skip

    @torch.no_grad()
    def _put_back(self) -> None:
        state = self.checkpoint.load() if self.checkpoint else None
        if state is None:
            return
        values, device = state.values, next(iter(self.trained.values())).device
        self.epoch, self.step, self.best_epoch = values["epoch"], values["step"], values["best_epoch"]
        self.best_score, self.finished = values["best_score"], values["finished"]
        self.history = [(loss, score) for loss, score in values["history"]]
        self.best = {name: state.tensors[BEST + name].to(device) for name in self.trained}
        if self.finished:
            return
        for name, tensor in self.trained.items():
            tensor.copy_(state.tensors[NOW + name])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.tensors.items():
            if name.startswith(MOMENT):
                at, part = name.removeprefix(MOMENT).split(".")
                moments.setdefault(int(at), {})[part] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.schedule.load_state_dict(values["schedule"])
        for group, rate in zip(self.optimiser.param_groups, values["rates"], strict=True):
            group["lr"] = rate
        self.random.bit_generator.state = values["random"]
