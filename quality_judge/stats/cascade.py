"""Which rows a cheap judge may decide alone so that the promises of both together still hold, or an honest refusal.

A cheap score below `low` drops, one above `high` keeps, and the large judge decides the band between, ends included.
`nested_bands` makes bands of falling width from one part of the rows; `choose_band` tests them on another, from the
widest on, and takes the last before the first that fails (fixed-sequence testing, as `thresholds` does it). A band
passes when each promise passes its exact binomial test at the full level: to break a promise unseen, a band has to pass
the very test of that promise, so that nothing is divided among them (an intersection-union test, Berger 1982).
It does not know what the rows are; a promise speaks of rows drawn like the labelled ones, and of no others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binom

from quality_judge.errors import InputError
from quality_judge.stats.certificate import (
    Certificate,
    Guaranteed,
    check_request,
    clopper_pearson,
    floor3,
    lower_bound,
)
from quality_judge.stats.metrics import Array, checked
from quality_judge.stats.thresholds import least_trials, rows_needed

MOST_BANDS = 20


@dataclass(frozen=True, slots=True)
class Band:
    """Cheap scores from `low` to `high`, both included, are for the large judge."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise InputError(f"band from {self.low} to {self.high}; expected 0 <= low <= high <= 1")

    def asks(self, cheap: Array) -> Array:
        """Whether the large judge decides the row, bool (n,); it does where the cheap one has no score (NaN)."""
        return np.isnan(cheap) | ((cheap >= self.low) & (cheap <= self.high))

    def keeps(self, cheap: Array, large: Array, cut: float) -> Array:
        """Whether the row is kept, bool (n,): the score that decides it is at or above `cut`; without one it is not."""
        return np.nan_to_num(np.where(self.asks(cheap), large, cheap), nan=-1.0) >= cut


@dataclass(frozen=True, slots=True)
class BandChoice:
    """The narrowest band that was certified, or None and why not.

    saving: share of the certification rows that the large judge need not see. agreement: share decided as it alone
    would. Both as they were seen, with exact intervals that do not allow for the choice. passed: how many bands did.
    """

    band: Band | None
    promises: tuple[Certificate, ...]
    saving: float
    saving_ci: tuple[float, float]
    agreement: float
    agreement_ci: tuple[float, float]
    passed: int = 0
    message: str = ""
    n: int = 0
    confidence: float = field(default=0.9)


def nested_bands(cheap: Any, large: Any, cut: float) -> list[Band]:
    """Up to MOST_BANDS + 2 bands around `cut`, each within the one before; the first holds every row.

    cheap, large: probabilities (n,) of rows that take no part in `choose_band`. Each step gives those clear rows to the
    cheap judge, the highest or the lowest, where the two disagree least. Labels have no part in it.
    """
    cheap, large = (np.asarray(scores, dtype=np.float64) for scores in (cheap, large))
    seen = ~np.isnan(cheap)
    cheap, large = cheap[seen], np.nan_to_num(large[seen], nan=-1.0)
    order = np.argsort(cheap, kind="stable")
    below, above = order[cheap[order] < cut], order[cheap[order] > cut][::-1]
    step = max(1, math.ceil(len(cheap) / MOST_BANDS))
    given = [0, 0]
    bands = [Band(0.0, 1.0)]
    while given[0] < len(below) or given[1] < len(above):
        parts = below[given[0] : given[0] + step], above[given[1] : given[1] + step]
        wrong = (large[parts[0]] >= cut, large[parts[1]] < cut)
        rates = [float(each.mean()) if len(each) else np.inf for each in wrong]
        side = int(np.argmin(rates))
        given[side] += len(parts[side])
        low = cheap[below[given[0]]] if given[0] < len(below) else cut
        high = cheap[above[given[1]]] if given[1] < len(above) else cut
        bands.append(Band(float(low) if given[0] else 0.0, float(high) if given[1] else 1.0))
    return bands


def choose_band(
    cheap: Any, large: Any, labels: Any, bands: Sequence[Band], *, cut: float, precision: float | None = 0.9,
    recall: float | None = None, confidence: float = 0.9,
) -> BandChoice:  # fmt: skip
    """The last of `bands` before the first whose precision or recall is not shown with `confidence`.

    cheap, large, labels: (n,), of rows that had no part in training, calibration, `cut` or `bands`.
    """
    targets: list[tuple[Guaranteed, float]] = []
    targets += [("precision", precision)] if precision is not None else []
    targets += [("recall", recall)] if recall is not None else []
    if not targets or not bands:
        raise InputError("nothing to certify: ask for a precision or a recall, and give at least one band")
    for metric, target in targets:
        check_request(metric, target, confidence)
    good = checked(labels, np.zeros(len(labels)))[0]
    cheap, large = (np.asarray(scores, dtype=np.float64) for scores in (cheap, large))
    held: tuple[Band, tuple[Certificate, ...]] | None = None
    failed: tuple[Certificate, ...] = ()
    passed = 0
    for band in bands:
        kept = band.keeps(cheap, large, cut)
        tested = tuple(_tested(metric, target, confidence, cut, kept, good) for metric, target in targets)
        if not all(each.granted for each in tested):
            failed = tested
            break
        held, passed = (band, tested), passed + 1
    return _chosen(cheap, large, cut, held, failed, passed, confidence)


def _tested(metric: Guaranteed, target: float, confidence: float, cut: float, kept: Array, good: Array) -> Certificate:
    """The exact test of one promise about the rows in `kept`."""
    trials, errors = (kept, kept & ~good) if metric == "precision" else (good, good & ~kept)
    n, wrong = int(trials.sum()), int(errors.sum())
    inside, share = int(kept.sum()), float((kept & good).sum() / max(int(good.sum()), 1))
    what = f"{wrong} of {n} kept rows are bad" if metric == "precision" else f"{wrong} of {n} good rows are lost"
    bound = lower_bound(wrong, n, confidence) if n else 0.0
    if n and binom.cdf(wrong, n, 1 - target) <= 1 - confidence:
        said = f"{metric} >= {target:g} with confidence {confidence:g}: {what} (lower bound {floor3(bound)})"
        return Certificate(metric, target, confidence, cut, len(good), inside, wrong, bound, share, True, 0, said)
    needed = rows_needed((wrong + 0.5) / (n + 1), target, confidence) if n else least_trials(target, confidence)
    missing = None if needed is None or not n else max(max(needed - n, 1) * len(good) // n, 1)
    if missing is not None:
        advice = f"label about {missing} more rows"
    else:
        advice = "the judges are too weak for it" if n else "there is nothing to tell it by"
    said = f"{metric} >= {target:g} is not shown with confidence {confidence:g}: {what}; {advice}"
    return Certificate(metric, target, confidence, None, len(good), 0, 0, None, None, False, missing, said)


def _chosen(
    cheap: Array, large: Array, cut: float, held: tuple[Band, tuple[Certificate, ...]] | None,
    failed: tuple[Certificate, ...], passed: int, confidence: float,
) -> BandChoice:  # fmt: skip
    n = len(cheap)
    if held is None:
        said = "; ".join(each.message for each in failed if not each.granted)
        refused = f"no cascade: not even the large judge alone passes; {said}"
        return BandChoice(None, failed, 0.0, (0.0, 1.0), 1.0, (0.0, 1.0), 0, refused, n, confidence)
    band, promises = held
    alone = np.nan_to_num(large, nan=-1.0) >= cut
    asked, differing = int(band.asks(cheap).sum()), int((band.keeps(cheap, large, cut) != alone).sum())
    saved, wrong = clopper_pearson(n - asked, n, confidence), clopper_pearson(differing, n, confidence)
    said = (
        f"the large judge decides cheap scores from {band.low:g} to {band.high:g}: it need not see {1 - asked / n:.1%} "
        f"of {n} rows, and {differing} of them are decided otherwise than by it alone; "
        + "; ".join(each.message for each in promises)
    )
    agreement = (1 - wrong[1], 1 - wrong[0])
    return BandChoice(band, promises, 1 - asked / n, saved, 1 - differing / n, agreement, passed, said, n, confidence)
