"""Where to cut: a threshold with a certified precision or recall, or an honest refusal; and the best plain threshold.

Certifying is fixed-sequence testing with exact binomial p-values (Clopper & Pearson 1934; Learn then Test, Angelopoulos
et al. 2021): cuts are tried in an order that no label has influenced, and the last one before the first failure holds.
It does not know what the rows are. A certificate speaks of rows drawn like the labelled ones, and of no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import beta, binom

from quality_judge.errors import InputError, unknown
from quality_judge.stats.metrics import Array, checked

Guaranteed = Literal["precision", "recall"]
Optimised = Literal["f1", "accuracy", "kappa"]
GRID_POINTS = 20
# The strictest cut keeps this share of the labelled rows, or the fewest that can pass with no error if that is more.
# Starting at 30 rows kept found recall .29 at 400 labels, starting at 15% found .45 (AUC .88, 60% good, target .9).
START_SHARE = 0.15
POWER = 0.8  # `labels_missing` is what succeeds this often if the judge is as good as it looks
MOST_LABELS = 100_000


@dataclass(frozen=True, slots=True)
class Certificate:
    """`metric` >= `target` with `confidence` when rows with probability >= `threshold` are kept; or why not.

    n: labelled rows used.   n_kept: of these, at or above the threshold.   n_errors: bad rows kept (precision) or good
    rows lost (recall).   lower_bound: one-sided, exact.   recall_estimate: share of good rows kept.   When not granted,
    these are None or 0, and labels_missing estimates how many more would do; None: more labels will not help.
    """

    metric: Guaranteed
    target: float
    confidence: float
    threshold: float | None
    n: int
    n_kept: int
    n_errors: int
    lower_bound: float | None
    recall_estimate: float | None
    granted: bool
    labels_missing: int | None
    message: str

    def __post_init__(self) -> None:
        _check_request(self.metric, self.target, self.confidence)
        if self.granted != (self.threshold is not None):
            raise InputError(
                "a certificate must have a threshold exactly when it is granted; the judge folder is damaged"
            )
        for name in ("threshold", "lower_bound", "recall_estimate"):
            value = getattr(self, name)
            if value is not None and not (_is_real(value) and 0 <= value <= 1):
                raise InputError(f"certificate {name} is {value!r}; expected a number from 0 to 1")
        for name in ("n", "n_kept", "n_errors", "labels_missing"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 0) and not (value is None and name == "labels_missing"):
                raise InputError(f"certificate {name} is {value!r}; expected a whole number, 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """What `to_dict` wrote; refuses unknown and missing keys."""
        names = {field.name for field in fields(cls)}
        for key in sorted(set(data) - names):
            raise InputError(unknown("key of a certificate", key, names))
        if missing := sorted(names - set(data)):
            raise InputError(f"the certificate lacks {', '.join(missing)}; the judge folder is damaged")
        return cls(**data)


def certify(
    probability: Any,
    labels: Any,
    *,
    target: float = 0.9,
    confidence: float = 0.9,
    metric: Guaranteed = "precision",
    grid: Any = None,
) -> Certificate:
    """The loosest cut whose precision (or the strictest whose recall) is certified, or a refusal.

    probability, labels: (n,), of rows that had no part in training or calibration.   grid: thresholds fixed beforehand;
    with it the certificate is exact. Without it the cuts are order statistics of the probabilities themselves: each
    single test is exact, and the sequence held its promise in simulation at 100 to 1,000 labels (broken in at most 6%
    of draws where 10% are allowed).
    """
    _check_request(metric, target, confidence)
    good, scores = checked(labels, probability)
    cuts = (
        _grid(scores, target, confidence, metric) if grid is None else np.sort(np.asarray(grid, dtype=np.float64))[::-1]
    )
    kept = (scores[None, :] >= cuts[:, None]).sum(axis=1)
    kept_good = (scores[good][None, :] >= cuts[:, None]).sum(axis=1)
    if metric == "precision":
        trials, errors = kept, kept - kept_good
        usable = trials >= least_trials(target, confidence)
    else:
        cuts, kept, kept_good = cuts[::-1], kept[::-1], kept_good[::-1]
        trials, errors = np.full(len(cuts), int(good.sum())), int(good.sum()) - kept_good
        usable = np.full(len(cuts), True)
    cuts, kept, kept_good = cuts[usable], kept[usable], kept_good[usable]
    trials, errors = trials[usable], errors[usable]
    passed = binom.cdf(errors, trials, 1 - target) <= 1 - confidence
    n_passed = int(np.argmin(passed)) if len(passed) and not passed.all() else len(passed)
    request = (metric, target, confidence)
    if n_passed == 0:
        return _refused(request, good, cuts, trials, errors)
    at = n_passed - 1
    return _granted(request, good, float(cuts[at]), int(kept[at]), int(kept_good[at]), int(errors[at]), int(trials[at]))


def clopper_pearson(errors: int, n: int, confidence: float) -> tuple[float, float]:
    """(low, high): the exact two-sided interval of an error rate after `errors` in `n` (Clopper & Pearson 1934)."""
    if not 0 <= errors <= n or n < 1:
        raise InputError(f"{errors} errors among {n} rows; expected 0 <= errors <= rows and at least one row")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, errors, n - errors + 1)) if errors else 0.0
    return low, float(beta.ppf(1 - tail, errors + 1, n - errors)) if errors < n else 1.0


def least_trials(target: float, confidence: float) -> int:
    """The fewest rows that certify `target` when not one is wrong: the least n with target**n <= 1 - confidence."""
    return math.ceil(round(math.log(1 - confidence) / math.log(target), 9))


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


def _grid(scores: Array, target: float, confidence: float, metric: Guaranteed) -> Array:
    """Cuts, strict to loose, from the scores alone. For precision those where one more error becomes affordable."""
    n = len(scores)
    if n == 0:
        return np.empty(0)
    ordered = np.sort(scores)[::-1]
    if metric == "recall":
        counts = np.linspace(0, n, GRID_POINTS + 1)[1:-1].astype(np.int64)
    else:
        counts = _affordable(n, target, confidence)
        counts = counts[counts >= min(START_SHARE * n, counts[-1])] if len(counts) else counts
        spaced = np.linspace(0, len(counts) - 1, min(GRID_POINTS, len(counts))).round().astype(np.int64)
        counts = np.union1d(counts[spaced], [n]) if len(counts) else counts
    # Strictly above the next row: given that row, those above it are a fair draw of what the cut keeps.
    return np.asarray([_just_above(float(ordered[count])) if count < n else 0.0 for count in counts])


def _affordable(n: int, target: float, confidence: float) -> Array:
    """The k <= n at which one more error than at k - 1 still passes the test: 22, 38, 52, 65, … at .9 and .9."""
    trials = np.arange(1, n + 1)
    allowed = binom.ppf(1 - confidence, trials, 1 - target).astype(np.int64)
    allowed -= binom.cdf(allowed, trials, 1 - target) > 1 - confidence
    return trials[np.r_[allowed[0] >= 0, (np.diff(allowed) > 0) & (allowed[1:] >= 0)]]


def _just_above(score: float) -> float:
    """A short decimal above `score`; it depends on `score` alone."""
    digits = 6 if score < 0.999 else 12
    return min(1.0, round((math.floor(score * 10**digits) + 1) / 10**digits, digits))


def _granted(
    request: tuple[Guaranteed, float, float],
    good: Array,
    threshold: float,
    n_kept: int,
    n_kept_good: int,
    n_errors: int,
    trials: int,
) -> Certificate:
    metric, target, confidence = request
    bound, recall = _lower_bound(n_errors, trials, confidence), n_kept_good / max(int(good.sum()), 1)
    wrong = f"{n_errors} of them wrong" if metric == "precision" else f"{n_errors} of {trials} good rows lost"
    message = (
        f"{metric} >= {target:g} with confidence {confidence:g} at threshold {threshold:g}: {n_kept} of {len(good)} "
        f"held-out samples kept, {wrong} (lower bound {_floor3(bound)}); about {recall:.0%} of the good rows are kept"
    )
    return Certificate(
        metric, target, confidence, threshold, len(good), n_kept, n_errors, bound, recall, True, 0, message
    )


def _refused(
    request: tuple[Guaranteed, float, float], good: Array, cuts: Array, trials: Array, errors: Array
) -> Certificate:
    metric, target, confidence = request
    n = len(good)
    asked = f"no cut reaches {metric} >= {target:g} at confidence {confidence:g} on {n} held-out samples"
    if len(cuts) and trials[0]:
        best = int(np.argmax(1 - errors / trials))
        asked += f" (best: {1 - errors[best] / trials[best]:.3f} at {cuts[best]:g})"
    needed, advice = _labels_needed(request, good, trials, errors)
    return Certificate(metric, target, confidence, None, n, 0, 0, None, None, False, needed, f"{asked}; {advice}")


def _labels_needed(
    request: tuple[Guaranteed, float, float], good: Array, trials: Array, errors: Array
) -> tuple[int | None, str]:
    """How many more labels would certify some cut with probability POWER, and advice; None when none is good enough."""
    metric, target, confidence = request
    n, least = len(good), least_trials(target, confidence)
    if not len(trials) or trials[0] < least:
        share = 1.0 if metric == "precision" else float(good.sum() + 1) / (n + 2)
        more = max(1, math.ceil(least / share) - n)
        return more, f"label at least {more} more"
    totals = []
    sizes = np.unique(np.geomspace(least, MOST_LABELS, 400).astype(np.int64))
    for rate, share in zip((errors + 0.5) / (trials + 1), trials / n, strict=True):
        likely = binom.ppf(POWER, sizes, rate)
        enough = np.flatnonzero(binom.cdf(likely, sizes, 1 - target) <= 1 - confidence)
        if rate < 1 - target and len(enough):
            totals.append(sizes[enough[0]] / share)
    if totals and min(totals) <= MOST_LABELS:
        more = max(math.ceil(min(totals)) - n, math.ceil(n / 10))
        return more, f"label about {more} more, or lower the target"
    if (binom.sf(errors - 1, trials, 1 - target) > 1 - confidence).any():
        return n, f"too few to tell whether any cut can; label about {n} more and look again, or lower the target"
    return (
        None,
        "the judge is too weak at every cut, and more labels here will not help; lower the target or train on more",
    )


def _lower_bound(errors: int, n: int, confidence: float) -> float:
    return 1 - float(beta.ppf(confidence, errors + 1, n - errors)) if errors < n else 0.0


def _floor3(value: float) -> str:
    """Rounded down, so that a printed bound never promises more than was certified."""
    return f"{math.floor(value * 1000) / 1000:.3f}"


def _check_request(metric: str, target: float, confidence: float) -> None:
    if metric not in get_args(Guaranteed):
        raise InputError(unknown("metric to certify", metric, get_args(Guaranteed)))
    for name, value in (("target", target), ("confidence", confidence)):
        if not (_is_real(value) and 0 < value < 1):
            raise InputError(f"certificate {name} is {value!r}; expected a number between 0 and 1, such as 0.9")


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
