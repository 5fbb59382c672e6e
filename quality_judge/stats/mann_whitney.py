"""How far a ROC AUC may be off, where a bootstrap cannot tell: of few labels, and of a sample without a mistake.

The score-type interval of Newcombe (2006, Statistics in Medicine 25, method 5): the areas from which the one seen is
less than z of their own standard errors away, these by Hanley & McNeil (1982) for two exponential populations.
It knows nothing of rows.
"""

from __future__ import annotations

from math import sqrt

from scipy.optimize import brentq

Z = 1.959964  # 95%
NEAR = 1e-12  # an area of 0 or 1 has no error of its own, and would be its own bound


def auc_score_interval(auc: float, goods: int, bads: int) -> list[float]:
    """The 95% interval [low, high] of an area seen among `goods` good and `bads` bad rows, at least one of each."""

    def apart(area: float) -> float:
        return abs(area - auc) - Z * _standard_error(area, goods, bads)

    low = brentq(apart, 0.0, auc - NEAR) if auc > NEAR else 0.0
    high = brentq(apart, auc + NEAR, 1.0) if auc < 1 - NEAR else 1.0
    return [float(low), float(high)]


def _standard_error(area: float, goods: int, bads: int) -> float:
    mean = (goods + bads) / 2 - 1
    shape = 1 + mean * ((1 - area) / (2 - area) + area / (1 + area))
    return sqrt(area * (1 - area) * shape / (goods * bads))
