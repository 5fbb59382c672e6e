"""What a model says of examples: padded, in the device's own precision, each text of a batch computed once.

It knows nothing of losses or of what is learnt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from quality_judge.engine.kinds import ScalarModel, VerdictModel
from quality_judge.engine.precision import precision_here
from quality_judge.train.examples import Examples

LENGTH_STEP = 8
PREDICT_TOKENS = 2_048
Compute: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def padded_ids(examples: Examples, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """ids (B, T), padded on the right with 0 (never attended to), and lengths (B,), both int64.

    T is the longest row rounded up to LENGTH_STEP: fewer shapes, fewer kernels to make.
    """
    tokens = examples.tokens
    lengths = tokens.lengths[rows]
    width = min(-(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP, int(tokens.lengths.max()))
    places = np.arange(width)[None, :]
    at = np.minimum(tokens.offsets()[rows][:, None] + places, len(tokens.ids) - 1)
    ids = np.where(places < lengths[:, None], tokens.ids[at], 0)
    return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(lengths)


def predicted(model: ScalarModel, examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Outputs of the texts `rows`, float64 (len(rows), outputs), as the model stands."""
    return _computed(_standing(model, examples, rows), model, model.outputs, examples, rows)


def pooled_states(model: ScalarModel, examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Pooled states of the texts `rows`, float64 (len(rows), W), as the model stands."""
    return _computed(model.pooled, model, model.head.in_features, examples, rows)


def _standing(model: ScalarModel, examples: Examples, rows: np.ndarray) -> Compute:
    """The model on whole rows; what a verdict's rows begin with is computed once for all of them."""
    shared = model.shared if isinstance(model, VerdictModel) and len(rows) else 0
    if not shared:
        return model
    start, device = examples.tokens.offsets()[rows[0]], next(model.parameters()).device
    with autocast(device):
        begun = model.begun(examples.tokens.ids[start : start + shared].tolist())
    if begun is None:  # a prompt too short to be worth it: the rows stay whole
        return model
    return lambda ids, lengths: model(ids[:, shared:], lengths - shared, begun)


@torch.no_grad()
def _computed(compute: Compute, model: ScalarModel, width: int, examples: Examples, rows: np.ndarray) -> np.ndarray:
    model.eval()
    device = next(model.parameters()).device
    distinct, back = np.unique(examples.same[rows], return_inverse=True)
    outputs = np.empty((len(distinct), width))
    order = np.argsort(-examples.tokens.lengths[distinct], kind="stable")
    while len(order):
        some = order[: max(1, PREDICT_TOKENS // int(examples.tokens.lengths[distinct[order[0]]]))]
        ids, lengths = padded_ids(examples, distinct[some])
        with autocast(device):
            outputs[some] = compute(ids.to(device), lengths.to(device)).float().cpu().numpy()
        order = order[len(some) :]
    return outputs[back]


def autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 arithmetic where the device has it."""
    if precision_here(device.type) == torch.bfloat16:
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
