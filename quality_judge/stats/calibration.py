"""From raw scores to the probability that an expert would call a row good: Platt, or isotonic from 1,000 labels.

Platt: probability = sigmoid(slope * (raw - center) / scale + bias). Raw scores of different judges differ in spread and
in where their zero lies, so slope and bias live on standardised scores: center is the median, scale the standard
deviation with the outer 2.5% on both sides pulled in. The prior, slope ~ N(1, 1) and bias ~ N(log-odds of the labels,
1), then means the same for every judge. (A prior bias of 0 cost 0.05 nats at 20 labels, 93% of them good.)
It does not know where scores come from; fit on scores of rows the judge was not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from scipy.special import expit, log_expit

from quality_judge.errors import InputError, unknown
from quality_judge.scores import order_of
from quality_judge.stats.certificate import is_real
from quality_judge.stats.metrics import Array, checked

MIN_LABELS = 8  # to fit a curve at all, as in the folds of a cross-fit
MIN_STATED_LABELS = 20  # to state probabilities; below, Platt with a prior had an ECE above .08
MIN_LABELS_ISOTONIC = (
    1000  # below, isotonic loses to Platt at every size (Niculescu-Mizil & Caruana 2005, and measured)
)
SLOPE_FLOOR = 0.01  # a judge worse than chance gets a nearly flat curve, never a reversed one
EDGE = 1e-12  # probabilities stay this far inside (0, 1)
MAX_KNOTS = 100_000
MOST_RAW = 1e300
RISE = 1e-3  # how much of an isotonic map rises with the raw score alone: on its steps, too, rows have an order
NEWTON_STEPS = 100


@dataclass(frozen=True, slots=True)
class Calibration:
    """A rising map from raw score to probability. Platt uses slope, bias, center, scale; isotonic uses the knots."""

    method: Literal["platt", "isotonic"]
    slope: float = 1.0
    bias: float = 0.0
    center: float = 0.0
    scale: float = 1.0
    knots_raw: tuple[float, ...] = ()
    knots_probability: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in _FIELDS:
            raise InputError(unknown("calibration method", self.method, _FIELDS))
        numbers = (self.slope, self.bias, self.center, self.scale, *self.knots_raw, *self.knots_probability)
        if not all(map(is_real, numbers)):
            raise InputError("the calibration holds a value that is no finite number; the judge folder is damaged")
        if self.slope <= 0 or self.scale <= 0:
            raise InputError(f"calibration slope {self.slope:g} and scale {self.scale:g}; both must be above 0")
        if self.method == "isotonic":
            self._check_knots()

    def _check_knots(self) -> None:
        raw, probability = np.asarray(self.knots_raw), np.asarray(self.knots_probability)
        if not 1 <= len(raw) <= MAX_KNOTS or len(raw) != len(probability):
            raise InputError(
                f"isotonic calibration has {len(raw)} and {len(probability)} knots; expected as many of both"
            )
        if (np.diff(raw) <= 0).any() or (np.diff(probability) < 0).any():
            raise InputError("the knots of the isotonic calibration do not rise; the judge folder is damaged")
        if probability[0] <= 0 or probability[-1] >= 1:
            raise InputError("a knot of the isotonic calibration lies outside (0, 1); the judge folder is damaged")

    def apply(self, raw: Any) -> Array:
        """Probability, float64, same shape as raw, strictly inside (0, 1), rising with raw; NaN for NaN."""
        values = np.asarray(raw, dtype=np.float64)
        if self.method == "platt":
            with np.errstate(over="ignore"):  # a score beyond all measure ends at an edge, as it should
                found = expit(self.slope * ((values - self.center) / self.scale) + self.bias)
        else:
            steps = np.interp(values, self.knots_raw, self.knots_probability)
            bounded = np.clip(values, -MOST_RAW, MOST_RAW)  # infinity over infinity is no number
            found = (1 - RISE) * steps + RISE * order_of(bounded)
        return np.clip(found, EDGE, 1 - EDGE)

    def to_dict(self) -> dict[str, Any]:
        """The method and the parameters that it uses, ready for JSON."""
        values = {name: getattr(self, name) for name in _FIELDS[self.method]}
        return {"method": self.method, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """What `to_dict` wrote. Refuses unknown and missing keys, values that are not finite, and falling maps."""
        method: Any = data.get("method")
        if not isinstance(method, str) or method not in _FIELDS:
            raise InputError(unknown("calibration method", method, _FIELDS))
        expected = {"method", *_FIELDS[method]}
        for key in sorted(set(data) - expected):
            raise InputError(unknown(f"key of a {method} calibration", key, expected))
        if missing := sorted(expected - set(data)):
            raise InputError(f"the {method} calibration lacks {', '.join(missing)}; the judge folder is damaged")
        values: dict[str, Any] = {key: data[key] for key in _FIELDS[method]}
        for key, value in values.items():
            if isinstance(value, (list, tuple)) != key.startswith("knots"):
                raise InputError(f"calibration {key} is a {type(value).__name__}; the judge folder is damaged")
            values[key] = tuple(value) if key.startswith("knots") else value
        return cls(cast("Any", method), **values)


_FIELDS: dict[str, tuple[str, ...]] = {
    "platt": ("slope", "bias", "center", "scale"),
    "isotonic": ("knots_raw", "knots_probability"),
}


def fit_calibration(
    raw: Any, labels: Any, *, weights: Any = None, texts: Any = None, folds: int = 5, seed: int = 0
) -> Calibration:
    """Platt below 1,000 texts; from there whichever of Platt and isotonic has the lower cross-validated log-loss.

    raw, labels, weights: (n,). texts: which text each label is of, int (n,), where a soft label is two; by default each
    is of its own. Raises InputError below 8 labels or when all are of one class.
    """
    good, raw, weights = _fittable(raw, labels, weights)
    names, text = np.unique(np.arange(len(good)) if texts is None else texts, return_inverse=True)
    weights = weights * len(names) / len(good)  # two labels of one text are no more evidence than one
    if len(names) < MIN_LABELS_ISOTONIC or min(good.sum(), (~good).sum()) < folds:
        return _platt(good, raw, weights)
    first = good[np.unique(text, return_index=True)[1]]
    fold = np.empty(len(names), dtype=np.int64)
    generator = np.random.default_rng(seed)
    for side in (first, ~first):
        fold[side] = generator.permutation(int(side.sum())) % folds
    loss = {"platt": 0.0, "isotonic": 0.0}
    fitters = {"platt": _platt, "isotonic": _isotonic}
    for number in range(folds):
        fit, test = fold[text] != number, fold[text] == number
        for name, fitter in fitters.items():
            probability = fitter(good[fit], raw[fit], weights[fit]).apply(raw[test])
            loss[name] -= float(weights[test] @ np.log(np.where(good[test], probability, 1 - probability)))
    return fitters[min(fitters, key=lambda name: loss[name])](good, raw, weights)


def labels_missing(good: int, bad: int) -> int:
    """How many labels are missing before a probability may be stated: MIN_STATED_LABELS in all, one of each class."""
    return max(MIN_STATED_LABELS - good - bad, (good == 0) + (bad == 0))


def fit_platt(raw: Any, labels: Any, *, weights: Any = None) -> Calibration:
    """The Platt calibration of largest posterior, with slope >= SLOPE_FLOOR.

    Targets are smoothed to (n+ + 1)/(n+ + 2) and 1/(n- + 2) (Platt 1999); the prior stands at the top of this file.
    Such a prior keeps few labels from a curve that is too steep: of the usual calibrators this kind had the lowest
    log-loss at 20, 40, 80, 160 and 320 labels.
    """
    return _platt(*_fittable(raw, labels, weights))


def _platt(good: Array, raw: Array, weights: Array) -> Calibration:
    center, scale = float(np.median(raw)), _spread(raw)
    x, targets = (raw - center) / scale, _smoothed(good, weights)
    odds = float(np.log((weights[good].sum() + 1) / (weights[~good].sum() + 1)))
    slope, bias = _newton(x, targets, weights, odds)
    if slope < SLOPE_FLOOR:
        slope, bias = _newton(x, targets, weights, odds, slope=SLOPE_FLOOR)
    return Calibration("platt", slope=slope, bias=bias, center=center, scale=scale)


def fit_isotonic(raw: Any, labels: Any, *, weights: Any = None) -> Calibration:
    """Isotonic regression on Platt's smoothed targets, joined by straight lines between the block means.

    Joining the means (Oron & Flournoy 2017) leaves few ties. Raises InputError below 8 labels or with one class;
    `fit_calibration` does not use it below 1,000.
    """
    return _isotonic(*_fittable(raw, labels, weights))


def _isotonic(good: Array, raw: Array, weights: Array) -> Calibration:
    distinct, index = np.unique(raw, return_inverse=True)
    mass = np.bincount(index, weights)
    targets = np.bincount(index, weights * _smoothed(good, weights)) / mass
    fitted = pool_adjacent_violators(targets, mass)
    starts = np.flatnonzero(np.r_[True, np.diff(fitted) > 0])
    middle = np.add.reduceat(mass * distinct, starts) / np.add.reduceat(mass, starts)
    return Calibration(
        "isotonic", knots_raw=tuple(map(float, middle)), knots_probability=tuple(map(float, fitted[starts]))
    )


def pool_adjacent_violators(values: Array, weights: Array) -> Array:
    """The never-falling sequence nearest to values in weighted squares; float64 (n,). weights (n,) > 0."""
    means: list[float] = []
    masses: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, length = value, weight, 1
        while means and means[-1] >= mean:
            total = masses[-1] + mass
            mean = (means.pop() * masses[-1] + mean * mass) / total
            masses.pop()
            mass, length = total, length + lengths.pop()
        means.append(mean)
        masses.append(mass)
        lengths.append(length)
    return np.repeat(np.asarray(means, dtype=np.float64), lengths)


def _fittable(raw: Any, labels: Any, weights: Any) -> tuple[Array, Array, Array]:
    good, raw = checked(labels, raw)
    n, n_good = len(good), int(good.sum())
    if n < MIN_LABELS:
        raise InputError(f"{n} labels to calibrate on; at least {MIN_LABELS} are needed: label {MIN_LABELS - n} more")
    if n_good in (0, n):
        lacking = "bad" if n_good else "good"
        raise InputError(f"all {n} labels to calibrate on are of one class; at least 1 {lacking} row is missing")
    if weights is None:
        return good, raw, np.ones(n)
    (_, weights) = checked(good, weights)
    if (weights <= 0).any():
        raise InputError("a label weight is 0 or below; weights must be above 0")
    return good, raw, weights * (n / weights.sum())


def _smoothed(good: Array, weights: Array) -> Array:
    n_good, n_bad = weights[good].sum(), weights[~good].sum()
    return np.where(good, (n_good + 1) / (n_good + 2), 1 / (n_bad + 2))


def _spread(raw: Array) -> float:
    """A positive standard deviation that single wild scores cannot move far; 1 when all scores are equal."""
    low, high = np.quantile(raw, (0.025, 0.975))
    spread = float(np.clip(raw, low, high).std()) or float(raw.std())
    # Below this the scores are equal up to rounding, and dividing by it would only magnify the rounding.
    return spread if spread > 1e-9 * max(1.0, float(np.abs(raw).max())) else 1.0


def _newton(
    x: Array, targets: Array, weights: Array, odds: float, *, slope: float | None = None
) -> tuple[float, float]:
    """(slope, bias) of largest posterior by damped Newton steps on a strictly convex loss. A given slope is held."""
    free = slope is None
    prior = np.array([1.0 if slope is None else slope, odds])
    at = prior.copy()
    rows = np.stack([x * free, np.ones_like(x)], axis=1)
    for _ in range(NEWTON_STEPS):
        probability = expit(at[0] * x + at[1])
        gradient = rows.T @ (weights * (probability - targets)) + at - prior
        hessian = (rows * (weights * probability * (1 - probability))[:, None]).T @ rows + np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        if np.abs(step).max() < 1e-12:
            break
        size, here = 1.0, _loss(at, x, targets, weights, prior)
        while size > 1e-10 and _loss(at - size * step, x, targets, weights, prior) > here:
            size /= 2
        at = at - size * step
    return float(at[0]), float(at[1])


def _loss(at: Array, x: Array, targets: Array, weights: Array, prior: Array) -> float:
    z = at[0] * x + at[1]
    fit = -float(weights @ (targets * log_expit(z) + (1 - targets) * log_expit(-z)))
    return fit + 0.5 * float(np.square(at - prior).sum())
