"""How well scores agree with experts: point values and bootstrap intervals.

Every metric of labels is written once, for weighted rows: all weights 1 give the value, the counts of a bootstrap
draw give that draw's value. It does not know where scores come from, and it draws no pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from quality_judge.errors import InputError
from quality_judge.stats.bootstrap import bootstrap_counts, percentile_interval
from quality_judge.stats.mann_whitney import auc_score_interval

Array = np.ndarray
LABEL_METRICS = ("roc_auc", "average_precision", "accuracy", "f1", "cohen_kappa", "ece", "brier")
METRICS = (*LABEL_METRICS, "pair_accuracy", "kendall_tau")
CHANCE_DRAWS = 200
ECE_BINS = 10


def checked(labels: Any, *scores: Any) -> tuple[Array, ...]:
    """`labels` as bool (n,), `scores` as float64 (n,). Refuses other labels, other lengths, scores not finite."""
    good = np.asarray(labels)
    if good.ndim != 1 or not np.isin(good, (0, 1)).all():
        raise InputError(f"labels of shape {good.shape} and type {good.dtype}; expected one row of true and false")
    return (good.astype(bool), *(_finite(score, len(good)) for score in scores))


def roc_auc(labels: Any, scores: Any) -> float | None:
    """P(a good row scores above a bad one), ties counting half; None when one class is missing."""
    return _value("roc_auc", *checked(labels, scores))


def roc_auc_interval(labels: Any, scores: Any, *, draws: int = 200, seed: int = 0) -> list[float] | None:
    """The 95% interval of the ROC AUC, the bootstrap's and as `_widened` says; None when one class is missing."""
    good, scores = checked(labels, scores)
    if good.all() or not good.any():
        return None
    drawn = [_ranked(good, scores, counts)["roc_auc"] for counts in bootstrap_counts(len(good), seed, draws)]
    found = percentile_interval(np.concatenate(drawn))
    return found and _widened("roc_auc", roc_auc(good, scores) or 0.0, found, good)


def average_precision(labels: Any, scores: Any) -> float | None:
    """Sum of precision x gain in recall over the distinct scores, best first; None without a good row."""
    return _value("average_precision", *checked(labels, scores))


def accuracy(labels: Any, probability: Any, *, threshold: float = 0.5) -> float | None:
    """Share of rows where (probability >= threshold) is the label; None without rows."""
    return _value("accuracy", *checked(labels, probability), threshold=threshold)


def f1(labels: Any, probability: Any, *, threshold: float = 0.5) -> float | None:
    """Harmonic mean of precision and recall of the good class; None when no row is good and none is kept."""
    return _value("f1", *checked(labels, probability), threshold=threshold)


def cohen_kappa(labels: Any, probability: Any, *, threshold: float = 0.5) -> float | None:
    """Agreement beyond chance (Cohen 1960); None when chance alone agrees on every row."""
    return _value("cohen_kappa", *checked(labels, probability), threshold=threshold)


def ece(labels: Any, probability: Any, *, bins: int = ECE_BINS) -> float | None:
    """Expected calibration error over `bins` bins of equal width (not equal mass); None without rows."""
    return _value("ece", *checked(labels, probability), bins=bins)


def brier(labels: Any, probability: Any) -> float | None:
    """Mean squared error of the probability; None without rows."""
    return _value("brier", *checked(labels, probability))


def pair_accuracy(chosen: Any, rejected: Any) -> float | None:
    """Share of pairs whose chosen side scores higher, ties counting half; None without pairs."""
    return _plain(_mean(_pair_wins(chosen, rejected), None))


def kendall_tau(rankings: Sequence[Any]) -> float | None:
    """Mean over rankings of (agreeing - disagreeing pairs) / pairs, tied scores counting 0 (tau-a); None without one.

    rankings: for each, the scores of its completions as the expert ranked them, best first; at least two.
    """
    return _plain(_mean(_taus(rankings), None))


class Clusters(NamedTuple):
    """The cluster of each labelled row, pair and ranking, from 0 without gaps, int64; None where none share one.

    Of too few (see `bootstrap_counts`) metrics have no interval.
    """

    labels: Array | None = None
    pairs: Array | None = None
    rankings: Array | None = None


def summarise(
    labels: Any,
    raw: Any,
    probability: Any,
    *,
    threshold: float | Array,
    seed: int = 0,
    draws: int = 500,
    pairs: tuple[Any, Any] | None = None,
    rankings: Sequence[Any] | None = None,
    categories: Mapping[str, tuple[Any, Any]] | None = None,
    clusters: Clusters | None = None,
) -> dict[str, Any]:
    """n, every name in METRICS with `<name>_ci` = [low, high], and per_category; None where a metric does not apply.

    Intervals are the 2.5 and 97.5 percentiles over `draws` bootstrap draws of rows, pairs or rankings, or of clusters
    of them where they are given; draws in which a metric is undefined are left out. Three are `_widened`,
    and the one of ece is `_above_chance`. raw orders rows (roc_auc, average_precision), probability (n,) does the rest.
    threshold: one, or one for each row.   pairs: (raw of chosen, raw of rejected).   rankings: raw scores, best first.
    categories: name to (labels, probability), where True means that the category applies.
    """
    good, raw, probability = checked(labels, raw, probability)
    values = {name: _value(name, good, probability, raw=raw, threshold=threshold) for name in LABEL_METRICS}
    clusters = clusters or Clusters()
    drawn = bootstrap_counts(len(good), seed, draws, clusters.labels)
    samples = _label_draws(good, raw, probability, threshold=threshold, drawn=drawn)
    for name, parts, cluster in (
        ("pair_accuracy", _pair_wins(*pairs) if pairs is not None else np.empty(0), clusters.pairs),
        ("kendall_tau", _taus(rankings or ()), clusters.rankings),
    ):
        values[name] = _plain(_mean(parts, None))
        samples[name] = [_mean(parts, counts) for counts in bootstrap_counts(len(parts), seed, draws, cluster)]
    pair_count = 0 if pairs is None else len(pairs[0] if clusters.pairs is None else np.unique(clusters.pairs))
    summary: dict[str, Any] = {"n": len(good)}
    for name in METRICS:
        value = summary[name] = values[name]
        bounds = percentile_interval(np.concatenate(samples[name]))
        if value is None or bounds is None:
            summary[f"{name}_ci"] = None
        elif name == "ece":
            summary[f"{name}_ci"] = _above_chance(value, bounds[1], probability, seed)
        else:
            summary[f"{name}_ci"] = _widened(name, value, bounds, good, pairs=pair_count)
    summary["per_category"] = None if categories is None else {k: _category(*v) for k, v in categories.items()}
    return summary


def _widened(name: str, value: float, bounds: list[float], good: Array, *, pairs: int = 0) -> list[float]:
    """The bootstrap's interval, as far as a score interval goes beyond it. pairs: how many, or clusters of them.

    A sample of 20 rows without a mistake is without one in every draw, and 1 to 1 would be its interval: of ROC AUC and
    accuracy the bootstrap's 95% held the truth in 34 to 86 of 100 sets of 20 or 40 rows.
    """
    goods = int(good.sum())
    if name == "roc_auc":
        known = auc_score_interval(value, goods, len(good) - goods)
    elif name == "accuracy":
        known = wilson(round(value * len(good)), len(good))
    elif name == "pair_accuracy":
        known = wilson(round(value * pairs), pairs)
    else:
        return bounds
    return [min(bounds[0], known[0]), max(bounds[1], known[1])]


def _above_chance(value: float, high: float, probability: Array, seed: int) -> list[float]:
    """The interval of a calibration error, from `high`, the upper bound of its bootstrap.

    It sums absolute differences, so chance adds to it, and a bootstrap adds chance again: of sets of 400 rows whose
    probabilities were right no bootstrap interval held the truth. It begins at 0 unless the error is larger than 97.5%
    of those that right probabilities have by chance, and then at the bound reflected about the value. Chance draws
    every row by itself: where rows of a cluster share their labels it adds more than is told here.
    """
    dice = np.random.default_rng(seed)
    chance = [
        _value("ece", dice.random(len(probability)) < probability, probability) or 0.0 for _ in range(CHANCE_DRAWS)
    ]
    low = 2 * value - high if value > np.quantile(chance, 0.975) else 0.0
    return [max(0.0, float(low)), max(value, high)]


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> list[float]:
    """[low, high] of a proportion (Wilson 1927); n >= 1."""
    z = float(ndtri(0.5 + confidence / 2))
    p, spread = successes / n, 1 + z * z / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = float((middle - half) / spread), float((middle + half) / spread)
    # At the ends the bound is the end itself; computed, it lies off by a rounding.
    return [max(0.0, low) if successes else 0.0, min(1.0, high) if successes < n else 1.0]


def _finite(scores: Any, n: int) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (n,):
        raise InputError(f"{n} labels and scores of shape {values.shape}; expected one score for each label")
    if bad := int((~np.isfinite(values)).sum()):
        raise InputError(f"{bad} of {n} scores are not finite; leave out the rows that have no score")
    return values


def _value(name: str, good: Array, scores: Array, **options: Any) -> float | None:
    options.setdefault("raw", scores)
    return _plain(_weighted(good, probability=scores, weights=np.ones((1, len(good))), only=name, **options)[name])


def _label_draws(
    good: Array, raw: Array, probability: Array, *, threshold: float | Array, drawn: Iterable[Array]
) -> dict[str, list[Array]]:
    samples: dict[str, list[Array]] = {name: [] for name in LABEL_METRICS}
    for weights in drawn:
        found = _weighted(good, raw=raw, probability=probability, weights=weights, threshold=threshold)
        for name in LABEL_METRICS:
            samples[name].append(found[name])
    return samples


def _weighted(
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


def _pair_wins(chosen: Any, rejected: Any) -> Array:
    better = np.asarray(chosen, dtype=np.float64)
    if better.ndim != 1:
        raise InputError(f"scores of chosen completions have shape {better.shape}; expected one score for each pair")
    better, worse = _finite(better, len(better)), _finite(rejected, len(better))
    return (better > worse) + 0.5 * (better == worse)


def _taus(rankings: Sequence[Any]) -> Array:
    taus = []
    for scores in rankings:
        values = _finite(scores, len(scores))
        if len(values) < 2:
            raise InputError(f"a ranking of {len(values)} completion(s); expected at least two, best first")
        upper = np.triu_indices(len(values), 1)
        taus.append(float(np.sign(values[upper[0]] - values[upper[1]]).mean()))
    return np.asarray(taus, dtype=np.float64)


def _mean(parts: Array, counts: Array | None) -> Array:
    if not len(parts):
        return np.full(1 if counts is None else len(counts), np.nan)
    return np.asarray([parts.mean()]) if counts is None else counts @ parts / counts.sum(axis=1)


def _category(labels: Any, probability: Any) -> dict[str, Any]:
    good, probability = checked(labels, probability)
    return {
        "n": len(good),
        "n_positive": int(good.sum()),
        "roc_auc": roc_auc(good, probability),
        "average_precision": average_precision(good, probability),
    }


def _plain(value: Array) -> float | None:
    return float(value[0]) if np.isfinite(value[0]) else None
