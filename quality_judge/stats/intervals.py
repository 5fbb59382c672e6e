"""How sure the metrics are: every one with its 95% interval, by bootstrap, and by score where a bootstrap is too sure.

It does not know where scores come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from quality_judge.stats.bootstrap import bootstrap_counts, percentile_interval
from quality_judge.stats.mann_whitney import auc_score_interval
from quality_judge.stats.metrics import (
    LABEL_METRICS,
    METRICS,
    Array,
    average_precision,
    checked,
    kendall_tau,
    kendall_taus,
    metric_of,
    pair_accuracy,
    pair_wins,
    roc_auc,
    weighted_mean,
    weighted_metrics,
)

CHANCE_DRAWS = 200


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
    values = {name: metric_of(name, good, probability, raw=raw, threshold=threshold) for name in LABEL_METRICS}
    clusters = clusters or Clusters()
    drawn = bootstrap_counts(len(good), seed, draws, clusters.labels)
    samples = _label_draws(good, raw, probability, threshold=threshold, drawn=drawn)
    values["pair_accuracy"] = None if pairs is None else pair_accuracy(*pairs)
    values["kendall_tau"] = kendall_tau(rankings or ())
    for name, parts, cluster in (
        ("pair_accuracy", np.empty(0) if pairs is None else pair_wins(*pairs), clusters.pairs),
        ("kendall_tau", kendall_taus(rankings or ()), clusters.rankings),
    ):
        samples[name] = [weighted_mean(parts, counts) for counts in bootstrap_counts(len(parts), seed, draws, cluster)]
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


def roc_auc_interval(labels: Any, scores: Any, *, draws: int = 200, seed: int = 0) -> list[float] | None:
    """The 95% interval of the ROC AUC, the bootstrap's and as `_widened` says; None when one class is missing."""
    good, scores = checked(labels, scores)
    if good.all() or not good.any():
        return None
    drawn = [
        weighted_metrics(good, raw=scores, probability=scores, weights=counts, only="roc_auc")["roc_auc"]
        for counts in bootstrap_counts(len(good), seed, draws)
    ]
    found = percentile_interval(np.concatenate(drawn))
    return found and _widened("roc_auc", roc_auc(good, scores) or 0.0, found, good)


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
        metric_of("ece", dice.random(len(probability)) < probability, probability) or 0.0 for _ in range(CHANCE_DRAWS)
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


def _label_draws(
    good: Array, raw: Array, probability: Array, *, threshold: float | Array, drawn: Iterable[Array]
) -> dict[str, list[Array]]:
    samples: dict[str, list[Array]] = {name: [] for name in LABEL_METRICS}
    for weights in drawn:
        found = weighted_metrics(good, raw=raw, probability=probability, weights=weights, threshold=threshold)
        for name in LABEL_METRICS:
            samples[name].append(found[name])
    return samples


def _category(labels: Any, probability: Any) -> dict[str, Any]:
    good, probability = checked(labels, probability)
    return {
        "n": len(good),
        "n_positive": int(good.sum()),
        "roc_auc": roc_auc(good, probability),
        "average_precision": average_precision(good, probability),
    }
