"""How well scores agree with experts.

Every metric of labels is written once, for weighted rows: all weights 1 give the value, the counts of a bootstrap
draw give that draw's value (`intervals`). It does not know where scores come from, and it draws no pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quality_judge.errors import InputError

Array = np.ndarray
LABEL_METRICS = ("roc_auc", "average_precision", "accuracy", "f1", "cohen_kappa", "ece", "brier")
METRICS = (*LABEL_METRICS, "pair_accuracy", "kendall_tau")
ECE_BINS = 10


def checked(labels: Any, *scores: Any) -> tuple[Array, ...]:
    """`labels` as bool (n,), `scores` as float64 (n,). Refuses other labels, other lengths, scores not finite."""
    good = np.asarray(labels)
    if good.ndim != 1 or not np.isin(good, (0, 1)).all():
        raise InputError(f"labels of shape {good.shape} and type {good.dtype}; expected one row of true and false")
    return (good.astype(bool), *(_finite(score, len(good)) for score in scores))


def roc_auc(labels: Any, scores: Any) -> float | None:
    """P(a good row scores above a bad one), ties counting half; None when one class is missing."""
    return metric_of("roc_auc", *checked(labels, scores))


def average_precision(labels: Any, scores: Any) -> float | None:
    """Sum of precision x gain in recall over the distinct scores, best first; None without a good row."""
    return metric_of("average_precision", *checked(labels, scores))


def accuracy(labels: Any, probability: Any, *, threshold: float = 0.5) -> float | None:
    """Share of rows where (probability >= threshold) is the label; None without rows."""
    return metric_of("accuracy", *checked(labels, probability), threshold=threshold)


def f1(labels: Any, probability: Any, *, threshold: float = 0.5) -> float | None:
    """Harmonic mean of precision and recall of the good class; None when no row is good and none is kept."""
    return metric_of("f1", *checked(labels, probability), threshold=threshold)


def cohen_kappa(labels: Any, probability: Any, *, threshold: float = 0.5) -> float | None:
    """Agreement beyond chance (Cohen 1960); None when chance alone agrees on every row."""
    return metric_of("cohen_kappa", *checked(labels, probability), threshold=threshold)


def ece(labels: Any, probability: Any, *, bins: int = ECE_BINS) -> float | None:
    """Expected calibration error over `bins` bins of equal width (not equal mass); None without rows."""
    return metric_of("ece", *checked(labels, probability), bins=bins)


def brier(labels: Any, probability: Any) -> float | None:
    """Mean squared error of the probability; None without rows."""
    return metric_of("brier", *checked(labels, probability))


def pair_accuracy(chosen: Any, rejected: Any) -> float | None:
    """Share of pairs whose chosen side scores higher, ties counting half; None without pairs."""
    return _plain(weighted_mean(pair_wins(chosen, rejected), None))


def kendall_tau(rankings: Sequence[Any]) -> float | None:
    """Mean over rankings of (agreeing - disagreeing pairs) / pairs, tied scores counting 0 (tau-a); None without one.

    rankings: for each, the scores of its completions as the expert ranked them, best first; at least two.
    """
    return _plain(weighted_mean(kendall_taus(rankings), None))


def _finite(scores: Any, n: int) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (n,):
        raise InputError(f"{n} labels and scores of shape {values.shape}; expected one score for each label")
    if bad := int((~np.isfinite(values)).sum()):
        raise InputError(f"{bad} of {n} scores are not finite; leave out the rows that have no score")
    return values


def metric_of(name: str, good: Array, scores: Array, **options: Any) -> float | None:
    """One of LABEL_METRICS of `checked` rows; None where it is not defined. options: of `weighted_metrics`."""
    options.setdefault("raw", scores)
    once = np.ones((1, len(good)))
    return _plain(weighted_metrics(good, probability=scores, weights=once, only=name, **options)[name])


def weighted_metrics(
    good: Array,
    *,
    raw: Array,
    probability: Array,
    weights: Array,
    threshold: float | Array = 0.5,
    bins: int = ECE_BINS,
    only: str | None = None,
) -> dict[str, Array]:
    """Each metric (or `only` one) for every row of `weights` (draws, n): arrays (draws,), NaN where undefined."""
    found: dict[str, Array] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        if only in (None, "roc_auc", "average_precision"):
            found.update(_ranked(good, raw, weights))
        if only not in ("roc_auc", "average_precision"):
            found.update(_thresholded(good, probability >= threshold, weights))
            found.update(_probabilistic(good, probability, weights, bins))
    return found


@np.errstate(divide="ignore", invalid="ignore")
def _ranked(good: Array, raw: Array, weights: Array) -> dict[str, Array]:
    order = np.argsort(-raw, kind="stable")
    if not len(order):
        nothing = np.full(len(weights), np.nan)
        return {"roc_auc": nothing, "average_precision": nothing}
    starts = np.flatnonzero(np.r_[True, np.diff(raw[order]) != 0])
    weights = weights[:, order]
    positive = np.add.reduceat(weights * good[order], starts, axis=1)
    every = np.add.reduceat(weights, starts, axis=1)
    positives, rows = np.cumsum(positive, axis=1), np.cumsum(every, axis=1)
    n_positive, n = positives[:, -1], rows[:, -1]
    negative = every - positive
    beaten = (n - n_positive)[:, None] - (rows - positives) + 0.5 * negative
    precision = positives / np.maximum(rows, 1e-300)
    return {
        "roc_auc": (positive * beaten).sum(axis=1) / (n_positive * (n - n_positive)),
        "average_precision": (positive * precision).sum(axis=1) / n_positive,
    }


def _thresholded(good: Array, kept: Array, weights: Array) -> dict[str, Array]:
    columns = np.stack([kept & good, kept, good, np.ones_like(good)], axis=1).astype(np.float64)
    both, n_kept, n_good, n = (weights @ columns).T
    right = (n - n_kept - n_good + 2 * both) / n
    chance = (n_kept * n_good + (n - n_kept) * (n - n_good)) / n**2
    return {
        "accuracy": right,
        "f1": 2 * both / (n_kept + n_good),
        "cohen_kappa": np.where(chance < 1, (right - chance) / (1 - chance), np.nan),
    }


def _probabilistic(good: Array, probability: Array, weights: Array, bins: int) -> dict[str, Array]:
    if not len(good):
        nothing = np.full(len(weights), np.nan)
        return {"ece": nothing, "brier": nothing}
    n = weights.sum(axis=1)
    gap = np.zeros((len(good), bins))
    gap[np.arange(len(good)), probability_bins(probability, bins)] = probability - good
    return {
        "ece": np.abs(weights @ gap).sum(axis=1) / n,
        "brier": weights @ np.square(probability - good) / n,
    }


def probability_bins(probability: Array, bins: int) -> Array:
    """The bin of equal width, from 0, that each probability lies in, int64 (n,). Raises InputError outside [0, 1]."""
    if len(probability) and (probability.min() < 0 or probability.max() > 1):
        raise InputError("a probability lies outside [0, 1]; pass calibrated probabilities, not raw scores")
    return np.minimum((probability * bins).astype(np.int64), bins - 1)


def pair_wins(chosen: Any, rejected: Any) -> Array:
    """1 for each pair whose chosen side scores higher, .5 for a tie, else 0: float64 (n,)."""
    better = np.asarray(chosen, dtype=np.float64)
    if better.ndim != 1:
        raise InputError(f"scores of chosen completions have shape {better.shape}; expected one score for each pair")
    better, worse = _finite(better, len(better)), _finite(rejected, len(better))
    return (better > worse) + 0.5 * (better == worse)


def kendall_taus(rankings: Sequence[Any]) -> Array:
    """tau-a of each ranking, float64 (n,); see `kendall_tau`."""
    taus = []
    for scores in rankings:
        values = _finite(scores, len(scores))
        if len(values) < 2:
            raise InputError(f"a ranking of {len(values)} completion(s); expected at least two, best first")
        upper = np.triu_indices(len(values), 1)
        taus.append(float(np.sign(values[upper[0]] - values[upper[1]]).mean()))
    return np.asarray(taus, dtype=np.float64)


def weighted_mean(parts: Array, counts: Array | None) -> Array:
    """The mean of `parts` (n,) for each row of `counts` (draws, n), or once without; NaN of nothing."""
    if not len(parts):
        return np.full(1 if counts is None else len(counts), np.nan)
    return np.asarray([parts.mean()]) if counts is None else counts @ parts / counts.sum(axis=1)


def _plain(value: Array) -> float | None:
    return float(value[0]) if np.isfinite(value[0]) else None
