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
MOST_UNREAD = 0.1  # of a labelled text's tokens; in a language that the base was made for it is below .01
MOST_CUT = 0.25  # of the labelled texts
MOST_UNLIKE = 0.6  # of the interval's lower end; of 15 random draws from five label sets it was .54 at most


def finite(value: object) -> float | None:
    """`value` as a float, or None where it is no finite number (booleans are none)."""
    try:
        known = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return known if math.isfinite(known) else None


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


def label_faults(judge: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, float]:
    """name -> value of what its owner should know of the labels; only what is beyond its limit.

    unread: the share of a labelled text's tokens that the base does not know. cut: the share of labelled texts that are
    longer than what is read. unlike: the ROC AUC by which they are told from the corpus, see `unlike`.
    """
    training, alike = judge.get("training") or {}, (metrics.get("labels") or {}).get("likeness") or {}
    found = {
        "unread": (finite(training.get("unknown_tokens")), MOST_UNREAD),
        "cut": (finite(training.get("cut_texts")), MOST_CUT),
        "unlike": (finite(alike.get("roc_auc")) if unlike(alike) else None, MOST_UNLIKE),
    }
    return {name: value for name, (value, most) in found.items() if value is not None and value > most}


def unlike(likeness: Mapping[str, Any]) -> bool:
    """Whether labels can be told from the corpus better than chance lets labels that were drawn from it at random."""
    bounds = interval(likeness, "roc_auc")
    return bounds is not None and bounds[0] > MOST_UNLIKE


def observed(certificate: Mapping[str, Any]) -> float | None:
    """The share of good rows among the labels that a certificate of precision keeps; None where it keeps none."""
    kept, errors = finite(certificate.get("n_kept")), finite(certificate.get("n_errors"))
    if (certificate.get("metric") or "precision") != "precision" or not kept or errors is None:
        return None
    return 1 - errors / kept
