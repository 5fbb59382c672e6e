"""How the parts of a judge are weighed against each other, by what each said of texts it had not seen."""

from __future__ import annotations

import numpy as np

from quality_judge.judge_spec import Stack
from quality_judge.train.examples import Examples
from quality_judge.train.linear import fit_linear


def fit_stack(examples: Examples, model: np.ndarray, surface: np.ndarray | None) -> tuple[Stack, np.ndarray]:
    """The weights of the parts, none below zero, fitted on out-of-fold raw scores; the stacked scores."""
    among = ~np.isnan(model)
    parts = [model] if surface is None else [model, surface]
    features = np.nan_to_num(np.column_stack(parts))
    scale = features[among].std(axis=0) + 1e-9
    used = np.ones(len(parts), bool)
    while True:
        linear = fit_linear(np.where(used, features / scale, 0.0), examples, among, strength=1.0)
        negative = used & (linear.weight < 0)
        if not negative.any() or used.sum() == 1:
            break
        used[np.argmin(np.where(used, linear.weight, np.inf))] = False
    weight = np.where(used, np.maximum(linear.weight, 1e-3), 0.0) / scale
    stack = Stack(bias=linear.bias, model=float(weight[0]), surface=float(weight[1]) if surface is not None else 0.0)
    return stack, np.where(among, stack.bias + features @ weight, np.nan)
