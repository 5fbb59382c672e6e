"""The curves of a report: whether probabilities are right, and what each threshold would keep. It draws no pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from quality_judge.stats.intervals import wilson
from quality_judge.stats.metrics import ECE_BINS, checked, probability_bins


def reliability_curve(labels: Any, probability: Any, *, bins: int = ECE_BINS) -> list[dict[str, Any]]:
    """For each equal-width bin: low, high, n, mean_probability, fraction_good, ci (95% Wilson); None if empty."""
    good, probability = checked(labels, probability)
    index = probability_bins(probability, bins)
    curve = []
    for number in range(bins):
        inside = index == number
        n, n_good = int(inside.sum()), int(good[inside].sum())
        curve.append(
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "n": n,
                "mean_probability": float(probability[inside].mean()) if n else None,
                "fraction_good": n_good / n if n else None,
                "ci": wilson(n_good, n) if n else None,
            }
        )
    return curve


def threshold_curve(labels: Any, probability: Any, *, points: int = 101) -> list[dict[str, Any]]:
    """For each of `points` thresholds in [0, 1]: threshold, precision, recall, keep_rate, n_kept."""
    good, probability = checked(labels, probability)
    curve = []
    for threshold in np.linspace(0, 1, points):
        kept = probability >= threshold
        n_kept, n_good = int(kept.sum()), int((kept & good).sum())
        curve.append(
            {
                "threshold": round(float(threshold), 6),
                "precision": n_good / n_kept if n_kept else None,
                "recall": n_good / int(good.sum()) if good.any() else None,
                "keep_rate": n_kept / len(good) if len(good) else None,
                "n_kept": n_kept,
            }
        )
    return curve
