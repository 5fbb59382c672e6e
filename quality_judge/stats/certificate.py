"""What a certificate says: one promise or its refusal, and the promises that a judge makes at once.

    Certificate   precision of what is kept, NPV of what is dropped, or recall: the good rows that are not dropped
    Promises      keep (precision), drop (NPV) and recall together, and the confidence that all of them hold

It knows nothing of how they are found (`thresholds`, `fresh`), and reads them from JSON as strictly as it writes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from quality_judge.errors import InputError, unknown

Guaranteed = Literal["precision", "recall", "npv"]
Sampling = Literal["random", "fresh"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """`metric` >= `target` with `confidence` at `threshold`; or why not.

    precision: of the rows at or above the threshold that share is good.   npv: of the rows below it that share is bad.
    recall: of the good rows that share lies at or above it.
    n: labelled rows used.   n_kept: of these, on the side that the promise is about (npv: below the threshold).
    n_errors: bad rows kept, good rows dropped (npv) or good rows lost (recall).   lower_bound: one-sided, exact.
    recall_estimate: share of the good rows at or above it; for npv of the bad rows below it.
    sampling: `random`, the rows were drawn from everything; `fresh`, from one side of a cut that was fixed before.
    When not granted, these are None or 0, and labels_missing estimates how many more would do; None: more labels will
    not help.
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
    sampling: Sampling = "random"

    def __post_init__(self) -> None:
        check_request(self.metric, self.target, self.confidence)
        if self.sampling not in get_args(Sampling):
            raise InputError(unknown("sampling of a certificate", self.sampling, get_args(Sampling)))
        if self.granted != (self.threshold is not None):
            raise InputError(
                "a certificate must have a threshold exactly when it is granted; the judge folder is damaged"
            )
        for name in ("threshold", "lower_bound", "recall_estimate"):
            value = getattr(self, name)
            if value is not None and not (is_real(value) and 0 <= value <= 1):
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


@dataclass(frozen=True, slots=True)
class Targets:
    """What to promise, all of it at once with `confidence`: shares from 0 to 1, None where nothing is asked."""

    precision: float = 0.9
    npv: float | None = None
    recall: float | None = None
    confidence: float = 0.9

    def __post_init__(self) -> None:
        for metric in ("precision", "npv", "recall"):
            if (target := getattr(self, metric)) is not None:
                check_request(metric, target, self.confidence)

    @property
    def asked(self) -> int:
        """How many promises."""
        return 1 + (self.npv is not None) + (self.recall is not None)


@dataclass(frozen=True, slots=True)
class Promises:
    """What is promised at once: with `confidence`, every certificate here that is granted is true.

    keep: precision from its threshold on.   drop: NPV below its threshold, which is never above that of keep.
    recall: the good rows that are kept or reviewed when rows below its threshold are dropped.   None: nobody asked.
    """

    keep: Certificate
    confidence: float
    drop: Certificate | None = None
    recall: Certificate | None = None

    @property
    def keep_at(self) -> float | None:
        """The cut from which rows may be kept; None when nothing is certified."""
        return self.keep.threshold

    @property
    def drop_below(self) -> float | None:
        """The cut below which rows may be dropped: every promise about that side that was asked for holds at it."""
        asked = [each for each in (self.drop, self.recall) if each is not None]
        cuts = [each.threshold for each in asked if each.threshold is not None]
        return min(cuts) if cuts and len(cuts) == len(asked) else None

    def to_dict(self) -> dict[str, Any]:
        """The certificate of keep, with `drop`, `recall` and `joint_confidence` beside it; ready for JSON."""
        others = {name: each and each.to_dict() for name, each in (("drop", self.drop), ("recall", self.recall))}
        return {**self.keep.to_dict(), **others, "joint_confidence": self.confidence}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Promises:
        """What `to_dict` wrote; refuses unknown and missing keys."""
        beside = {"drop", "recall", "joint_confidence"}
        if missing := sorted(beside - set(data)):
            raise InputError(f"the certificate lacks {', '.join(missing)}; the judge folder is damaged")
        keep = Certificate.from_dict({name: value for name, value in data.items() if name not in beside})
        drop, recall = (
            None if data[name] is None else Certificate.from_dict(data[name]) for name in ("drop", "recall")
        )
        if not (is_real(data["joint_confidence"]) and 0 < data["joint_confidence"] < 1):
            raise InputError(
                f"certificate joint_confidence is {data['joint_confidence']!r}; expected a number in (0, 1)"
            )
        return cls(keep, data["joint_confidence"], drop, recall)


def clopper_pearson(errors: int, n: int, confidence: float) -> tuple[float, float]:
    """(low, high): the exact two-sided interval of an error rate after `errors` in `n` (Clopper & Pearson 1934)."""
    if not 0 <= errors <= n or n < 1:
        raise InputError(f"{errors} errors among {n} rows; expected 0 <= errors <= rows and at least one row")
    tail = (1 - confidence) / 2
    low = _beta_quantile(tail, errors, n - errors + 1) if errors else 0.0
    return low, _beta_quantile(1 - tail, errors + 1, n - errors) if errors < n else 1.0


def lower_bound(errors: int, n: int, confidence: float) -> float:
    """The exact one-sided lower bound of the share that is no error, after `errors` in `n`; 0 without rows."""
    return 1 - _beta_quantile(confidence, errors + 1, n - errors) if errors < n else 0.0


def _beta_quantile(share: float, a: int, b: int) -> float:
    from scipy.stats import beta  # most of what a worker would spend on imports, and it bounds nothing

    return float(beta.ppf(share, a, b))


def floor3(value: float) -> str:
    """Rounded down, so that a printed bound never promises more than was certified."""
    return f"{math.floor(value * 1000) / 1000:.3f}"


def check_request(metric: str, target: float, confidence: float) -> None:
    """Raises InputError for a metric nobody can certify, or a target or confidence outside (0, 1)."""
    if metric not in get_args(Guaranteed):
        raise InputError(unknown("metric to certify", metric, get_args(Guaranteed)))
    for name, value in (("target", target), ("confidence", confidence)):
        if not (is_real(value) and 0 < value < 1):
            raise InputError(f"certificate {name} is {value!r}; expected a number between 0 and 1, such as 0.9")


def is_real(value: Any) -> bool:
    """Whether `value` is a finite number and no boolean."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False
