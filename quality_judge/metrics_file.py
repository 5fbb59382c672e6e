"""What metrics.json says, for those who print it: whose scores it holds, which metrics, with which intervals.

It computes no metric and knows nothing of the card or the report; of a value that is missing or no number it says None.

    metrics["test"] = {"n": int, "roc_auc": float | None, "roc_auc_ci": [low, high] | None, ...}
    metrics["baselines"] = {name: the same keys}
    metrics["certificate"] = stats.thresholds.Certificate.to_dict()
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

METRICS = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "f1": "F1",
    "cohen_kappa": "Cohen's kappa",
    "ece": "expected calibration error",
    "brier": "Brier score",
    "pair_accuracy": "pair accuracy",
    "kendall_tau": "Kendall's tau",
}
LOWER_IS_BETTER = ("ece", "brier", "log_loss")


def finite(value: object) -> float | None:
    """`value` as a float, or None where it is no finite number (booleans are none)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def interval(scores: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The interval of the metric `name` (low, high), or None."""
    pair = scores.get(f"{name}_ci")
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        return None
    low, high = finite(pair[0]), finite(pair[1])
    return None if low is None or high is None else (low, high)


def contenders(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The scores of the judge, under "judge", and of each baseline that has any; in the order of metrics.json."""
    found = {"judge": metrics.get("test"), **(metrics.get("baselines") or {})}
    return {name: scores for name, scores in found.items() if isinstance(scores, Mapping) and scores}


def metric_names(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics that anyone has a number for: those of METRICS first, then any other by name."""
    given = {key for scores in contenders(metrics).values() for key in scores if finite(scores[key]) is not None}
    given -= {"n"}
    return [name for name in METRICS if name in given] + sorted(given - set(METRICS))


def best_baseline(metrics: Mapping[str, Any], name: str = "roc_auc") -> tuple[str, float] | None:
    """The baseline that is best by the metric `name`, and its value; None where no baseline has one."""
    rivals = {who: finite(scores.get(name)) for who, scores in contenders(metrics).items() if who != "judge"}
    known = [(value, who) for who, value in rivals.items() if value is not None]
    if not known:
        return None
    value, who = min(known) if name in LOWER_IS_BETTER else max(known)
    return who, value


def observed(certificate: Mapping[str, Any]) -> float | None:
    """The share of good rows among the labels that a certificate of precision keeps; None where it keeps none."""
    kept, errors = finite(certificate.get("n_kept")), finite(certificate.get("n_errors"))
    if (certificate.get("metric") or "precision") != "precision" or not kept or errors is None:
        return None
    return 1 - errors / kept
