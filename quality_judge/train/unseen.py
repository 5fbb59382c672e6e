"""What a model in training says of rows it does not learn from: the score that stops it, and what it is judged by.

It knows nothing of folds, methods or how the model is trained.
"""

from __future__ import annotations

import numpy as np

from quality_judge.engine.kinds import ScalarModel
from quality_judge.errors import CheckFailed
from quality_judge.train.examples import Examples
from quality_judge.train.forward import predicted
from quality_judge.train.linear import order_score
from quality_judge.train.loop import DIVERGED, TrainResult


class Unseen:
    """What a model in training says of rows it does not see, once an epoch."""

    def __init__(self, model: ScalarModel, examples: Examples, rows: np.ndarray) -> None:
        self.model, self.examples, self.rows = model, examples, rows
        self.said: list[np.ndarray] = []

    def score(self) -> float:
        """How well the model as it stands orders them. Raises CheckFailed where it says no number."""
        said = predicted(self.model, self.examples, self.rows)
        if not np.isfinite(said[:, 0]).all():
            raise CheckFailed(DIVERGED)
        self.said.append(said)
        raw, among = np.full(len(self.examples), np.nan), np.zeros(len(self.examples), bool)
        raw[self.rows], among[self.rows] = said[:, 0], True
        return order_score(self.examples, raw, among)

    def outputs(self, result: TrainResult) -> np.ndarray:
        """What it says at its best epoch, where training has left it, float64 (rows, outputs).

        Known already, unless that epoch was before a kill, or the method has none.
        """
        at = result.epochs - 1 - (len(result.history) - len(self.said))
        return self.said[at] if 0 <= at < len(self.said) else predicted(self.model, self.examples, self.rows)
