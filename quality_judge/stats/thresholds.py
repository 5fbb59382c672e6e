"""Where to cut: thresholds with a certified precision, NPV or recall, or an honest refusal; and the best plain one.

Certifying is fixed-sequence testing with exact binomial p-values (Clopper & Pearson 1934; Learn then Test, Angelopoulos
et al. 2021): cuts are tried in an order that no label has influenced, and the last one before the first failure holds.
Two-sided: rows are kept above one certified cut, dropped below another, reviewed between; each promise is tested at
1 - (1 - confidence) / (number of promises), so that all hold at once with `confidence` (Bonferroni).
It does not know what the rows are. A certificate speaks of rows drawn like the labelled ones, and of no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import binom

from quality_judge.errors import InputError, unknown
from quality_judge.stats.certificate import (
    Certificate,
    Guaranteed,
    Promises,
    Targets,
    check_request,
    floor3,
    lower_bound,
)
from quality_judge.stats.metrics import Array, checked

Optimised = Literal["f1", "accuracy", "kappa"]
GRID_POINTS = 20
# The strictest cut keeps this share of the labelled rows, or the fewest that can pass with no error if that is more.
# Starting at 30 rows kept found recall .29 at 400 labels, starting at 15% found .45 (AUC .88, 60% good, target .9).
START_SHARE = 0.15
POWER = 0.8  # `labels_missing` is what succeeds this often if the judge is as good as it looks
MOST_LABELS = 100_000


@dataclass(frozen=True)
class _Tests:
    """The cuts in the order they are tried, and for each: rows on the promised side, those sought of them, the test."""

    cuts: Array
    inside: Array
    sought: Array
    trials: Array
    errors: Array

    def where(self, usable: Array) -> _Tests:
        return _Tests(*(part[usable] for part in (self.cuts, self.inside, self.sought, self.trials, self.errors)))


def certify(
    probability: Any,
    labels: Any,
    *,
    target: float = 0.9,
    confidence: float = 0.9,
    metric: Guaranteed = "precision",
    grid: Any = None,
    at_most: float | None = None,
) -> Certificate:
    """The loosest cut whose precision or NPV (or the strictest whose recall) is certified, or a refusal.

    probability, labels: (n,), of rows that had no part in training or calibration.   at_most: for NPV and recall, the
    highest cut that may be named.   grid: thresholds fixed beforehand; with it the certificate is exact. Without it the
    cuts are order statistics of the probabilities themselves: each single test is exact, and the sequence held its
    promise in simulation at 100 to 1,000 labels. The confidence is that of one look: labels that are added and tested
    together with the old ones until something is granted break it more often.
    """
    check_request(metric, target, confidence)
    good, scores = checked(labels, probability)
    request = (metric, target, confidence)
    cuts = _grid(scores, request) if grid is None else np.unique(np.asarray(grid, dtype=np.float64))
    tests = _tests(scores, good, cuts, metric)
    if metric != "recall":
        tests = tests.where(tests.trials >= least_trials(target, confidence))
    passed = binom.cdf(tests.errors, tests.trials, 1 - target) <= 1 - confidence
    n_passed = int(np.argmin(passed)) if len(passed) and not passed.all() else len(passed)
    if n_passed == 0:
        return _refused(request, good, tests)
    held = tests.where(np.arange(len(passed)) < n_passed)
    if at_most is not None and held.cuts[-1] > at_most:
        # Recall only rises as the cut falls; an NPV is certified at the cuts that were tried and at no other.
        below = _tests(scores, good, np.array([at_most]), metric) if metric == "recall" else None
        held = below or held.where(held.cuts <= at_most)
    if not len(held.cuts):
        return _overlapping(request, len(good), float(at_most or 0.0))
    return _granted(request, good, held)


def certify_all(probability: Any, labels: Any, targets: Targets) -> Promises:
    """Where rows may be kept and, if NPV or recall is asked for, where they may be dropped; review lies between.

    All promises together hold with `targets.confidence`: each has an equal share of what may go wrong.
    """
    each = 1 - (1 - targets.confidence) / targets.asked
    keep = certify(probability, labels, target=targets.precision, confidence=each)
    found = lost = None
    if targets.recall is not None:
        lost = certify(
            probability, labels, target=targets.recall, confidence=each, metric="recall", at_most=keep.threshold
        )
    if targets.npv is not None:
        caps = [known.threshold for known in (keep, lost) if known is not None and known.threshold is not None]
        at_most = min(caps, default=None)
        found = certify(probability, labels, target=targets.npv, confidence=each, metric="npv", at_most=at_most)
    return Promises(keep, targets.confidence, found, lost)


def proposed_cut(probability: Any, *, precision: float) -> float | None:
    """A cut to certify on fresh labels: the loosest that should pass, by the calibrated probabilities alone.

    Rows at or above it are expected to be good with the share (1 + precision) / 2, halfway from what is asked for to
    all, which at 0.9 takes 150 labels of kept rows to show four times in five; None when no row is that likely.
    """
    scores = np.sort(np.asarray(probability, dtype=np.float64))[::-1]
    expected = np.cumsum(scores) / np.arange(1, len(scores) + 1)
    enough = np.flatnonzero(expected >= (1 + precision) / 2)
    return _rounded(float(scores[enough[-1]]), math.floor) if len(enough) else None


def least_trials(target: float, confidence: float) -> int:
    """The fewest rows that certify `target` when not one is wrong: the least n with target**n <= 1 - confidence."""
    return math.ceil(round(math.log(1 - confidence) / math.log(target), 9))


def rows_needed(rate: float, target: float, confidence: float) -> int | None:
    """How many rows certify `target` with probability POWER when errors come at `rate`; None: more than MOST_LABELS."""
    sizes = np.unique(np.geomspace(least_trials(target, confidence), MOST_LABELS, 200).astype(np.int64))
    enough = np.flatnonzero(binom.cdf(binom.ppf(POWER, sizes, rate), sizes, 1 - target) <= 1 - confidence)
    return int(sizes[enough[0]]) if rate < 1 - target and len(enough) else None


def best_threshold(probability: Any, labels: Any, *, metric: Optimised = "f1") -> float:
    """The threshold of highest F1, accuracy or Cohen's kappa on these rows; nothing is promised about others.

    It lies midway between two neighbouring probabilities; among equals the one nearest 0.5 is taken.
    """
    if metric not in get_args(Optimised):
        raise InputError(unknown("metric to choose a threshold by", metric, get_args(Optimised)))
    good, scores = checked(labels, probability)
    if not good.any() or good.all():
        raise InputError(f"all {len(good)} labels are of one class; a threshold needs good and bad rows")
    distinct = np.unique(scores)
    cuts = np.r_[distinct[0], (distinct[1:] + distinct[:-1]) / 2]
    n, n_good = len(good), int(good.sum())
    kept = n - np.searchsorted(np.sort(scores), cuts)
    both = n_good - np.searchsorted(np.sort(scores[good]), cuts)
    accuracy = (n - kept - n_good + 2 * both) / n
    chance = (kept * n_good + (n - kept) * (n - n_good)) / n**2
    value = {"f1": 2 * both / (kept + n_good), "accuracy": accuracy, "kappa": (accuracy - chance) / (1 - chance)}[
        metric
    ]
    best = cuts[value >= value.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def _tests(scores: Array, good: Array, cuts: Array, metric: Guaranteed) -> _Tests:
    """The tests of rising `cuts`, strict to loose: precision from the highest down, the others from the lowest up."""
    if metric == "precision":
        cuts = cuts[::-1]
    above = scores[None, :] >= cuts[:, None]
    kept, kept_good = above.sum(axis=1), above[:, good].sum(axis=1)
    n, n_good = len(good), int(good.sum())
    if metric == "npv":
        return _Tests(cuts, n - kept, (n - n_good) - (kept - kept_good), n - kept, n_good - kept_good)
    if metric == "recall":
        return _Tests(cuts, kept, kept_good, np.full(len(cuts), n_good), n_good - kept_good)
    return _Tests(cuts, kept, kept_good, kept, kept - kept_good)


def _grid(scores: Array, request: tuple[Guaranteed, float, float]) -> Array:
    """Cuts, rising, from the scores alone. For precision and NPV those where one more error becomes affordable."""
    metric, target, confidence = request
    n = len(scores)
    if n == 0:
        return np.empty(0)
    if metric == "recall":
        counts = np.linspace(0, n, GRID_POINTS + 1)[1:-1].astype(np.int64)
    else:
        counts = _affordable(n, target, confidence)
        counts = counts[counts >= min(START_SHARE * n, counts[-1])] if len(counts) else counts
        spaced = np.linspace(0, len(counts) - 1, min(GRID_POINTS, len(counts))).round().astype(np.int64)
        counts = np.union1d(counts[spaced], [n]) if len(counts) else counts
    # Strictly beyond the next row: given that row, those beyond it are a fair draw of what is on that side of the cut.
    if metric == "npv":
        ordered = np.sort(scores)
        return np.unique([_rounded(float(ordered[count]), math.floor) if count < n else 1.0 for count in counts])
    ordered = np.sort(scores)[::-1]
    return np.unique([_just_above(float(ordered[count])) if count < n else 0.0 for count in counts])


@lru_cache(maxsize=64)
def _affordable(n: int, target: float, confidence: float) -> Array:
    """The k <= n at which one more error than at k - 1 still passes the test: 22, 38, 52, 65, … at .9 and .9."""
    trials = np.arange(1, n + 1)
    allowed = binom.ppf(1 - confidence, trials, 1 - target).astype(np.int64)
    allowed -= binom.cdf(allowed, trials, 1 - target) > 1 - confidence
    return trials[np.r_[allowed[0] >= 0, (np.diff(allowed) > 0) & (allowed[1:] >= 0)]]


def _just_above(score: float) -> float:
    """A short decimal above `score`; it depends on `score` alone."""
    return _rounded(score, lambda value: math.floor(value) + 1)


def _rounded(score: float, to_whole: Callable[[float], int]) -> float:
    digits = 6 if 0.001 < score < 0.999 else 12
    return min(1.0, round(to_whole(score * 10**digits) / 10**digits, digits))


def _granted(request: tuple[Guaranteed, float, float], good: Array, held: _Tests) -> Certificate:
    """The certificate at the last of the cuts that held."""
    metric, target, confidence = request
    threshold = float(held.cuts[-1])
    inside, sought, trials, errors = (int(part[-1]) for part in (held.inside, held.sought, held.trials, held.errors))
    bound = lower_bound(errors, trials, confidence)
    share = sought / max(int(good.sum() if metric != "npv" else (~good).sum()), 1)
    wrong = f"{errors} of {trials} good rows lost" if metric == "recall" else f"{errors} of them wrong"
    what, of = ("dropped", "bad rows are dropped") if metric == "npv" else ("kept", "good rows are kept")
    message = (
        f"{metric} >= {target:g} with confidence {confidence:g} at threshold {threshold:.15g}: {inside} of {len(good)} "
        f"held-out samples {what}, {wrong} (lower bound {floor3(bound)}); about {share:.0%} of the {of}"
    )
    return Certificate(metric, target, confidence, threshold, len(good), inside, errors, bound, share, True, 0, message)


def _refused(request: tuple[Guaranteed, float, float], good: Array, tests: _Tests) -> Certificate:
    metric, target, confidence = request
    n = len(good)
    asked = f"no cut reaches {metric} >= {target:g} at confidence {confidence:g} on {n} held-out samples"
    if len(tests.cuts) and tests.trials[0]:
        best = int(np.argmax(1 - tests.errors / tests.trials))
        asked += f" (best: {1 - tests.errors[best] / tests.trials[best]:.3f} at {tests.cuts[best]:g})"
    needed, advice = _labels_needed(request, good, tests.trials, tests.errors)
    return Certificate(metric, target, confidence, None, n, 0, 0, None, None, False, needed, f"{asked}; {advice}")


def _overlapping(request: tuple[Guaranteed, float, float], n: int, at_most: float) -> Certificate:
    metric, target, confidence = request
    message = (
        f"{metric} >= {target:g} holds only at cuts above {at_most:g}, from where rows are kept: nothing is dropped"
    )
    return Certificate(metric, target, confidence, None, n, 0, 0, None, None, False, None, message)


def _labels_needed(
    request: tuple[Guaranteed, float, float], good: Array, trials: Array, errors: Array
) -> tuple[int | None, str]:
    """How many more labels would certify some cut with probability POWER, and advice; None when none is good enough."""
    metric, target, confidence = request
    n, least = len(good), least_trials(target, confidence)
    if not len(trials) or trials[0] < least:
        share = float(good.sum() + 1) / (n + 2) if metric == "recall" else 1.0
        more = max(1, math.ceil(least / share) - n)
        return more, f"label at least {more} more"
    rates = zip((errors + 0.5) / (trials + 1), trials / n, strict=True)
    totals = [rows / share for rate, share in rates if (rows := rows_needed(rate, target, confidence)) is not None]
    if totals and min(totals) <= MOST_LABELS:
        more = max(math.ceil(min(totals)) - n, math.ceil(n / 10))
        return more, f"label about {more} more, or lower the target"
    if (binom.sf(errors - 1, trials, 1 - target) > 1 - confidence).any():
        return n, f"too few to tell whether any cut can; label about {n} more and look again, or lower the target"
    return (
        None,
        "the judge is too weak at every cut, and more labels here will not help; lower the target or train on more",
    )
