"""Draws texts of one label together and others apart, before a linear head is fitted to what the base makes of them.

SetFit's idea (Tunstall et al. 2022, 2209.11055) with the loss of supervised contrastive learning, which takes all pairs
of a batch instead of a sample of them. It takes the same few steps however many labels there are, and knows nothing of
heads, folds or files.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from quality_judge.engine.kinds import ScalarModel
from quality_judge.errors import CheckFailed, LabelError
from quality_judge.train import losses
from quality_judge.train.examples import Examples
from quality_judge.train.forward import autocast, padded_ids
from quality_judge.train.loop import DIVERGED, MAX_GRADIENT_NORM, Progress, warmed_up
from quality_judge.train.parts import refuse_ended

STEPS = 50
TEXTS_OF_A_LABEL = 16  # in a batch
CONTRAST_TEXTS = 2 * TEXTS_OF_A_LABEL
TEMPERATURE = 0.1


def contrast(
    model: ScalarModel, examples: Examples, among: np.ndarray, *, mean: np.ndarray, scale: np.ndarray,
    learning_rate: float, weight_decay: float, seed: int, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Trains the body of `model` in place on the decided texts where `among`, bool (n,).

    mean, scale: float64 (W,), of the untouched base's pooled states, which differ in size a thousandfold. Raises
    LabelError when a label has no two texts, CheckFailed when the loss is no number.
    """
    decided = among & examples.decided
    sides = [np.flatnonzero(decided & (examples.label > 0.5)), np.flatnonzero(decided & (examples.label < 0.5))]
    if min(map(len, sides)) < 2:
        raise LabelError("contrast needs two texts of each label at least; give more labels, or another train.method")
    device, random = next(model.parameters()).device, np.random.default_rng(seed)
    centre, width = (torch.from_numpy(values).float().to(device) for values in (mean, scale))
    trained = [parameter for parameter in model.body.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=weight_decay)
    schedule = warmed_up(optimiser, STEPS)
    model.eval()
    for step in range(STEPS):
        refuse_ended()
        rows = np.concatenate([random.permutation(side)[:TEXTS_OF_A_LABEL] for side in sides])
        label = torch.from_numpy(examples.label[rows] > 0.5).to(device)
        optimiser.zero_grad(set_to_none=True)
        loss = losses.contrastive((_states(model, examples, rows, device) - centre) / width, label, TEMPERATURE)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        optimiser.step()
        schedule.step()
        if not torch.isfinite(loss):
            raise CheckFailed(DIVERGED)
        if progress:
            progress(step + 1, STEPS, float(loss.detach()))


def _states(model: ScalarModel, examples: Examples, rows: np.ndarray, device: torch.device) -> Tensor:
    ids, lengths = padded_ids(examples, rows)
    with autocast(device):
        return model.pooled(ids.to(device), lengths.to(device)).float()
