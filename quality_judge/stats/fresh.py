"""Promises from fresh labels: drawn on either side of a cut that was fixed before anybody saw them.

With the cut fixed there is one test and no sequence, and every label is spent where the promise is (the idea of SUPG,
Kang et al. 2020, and BARGAIN, arXiv 2509.02896; here exact): the rarer kept rows are, the more that saves.
Two exact bounds carry every promise: a lower one on the share of good rows among the kept, an upper one among the
dropped. It does not know how rows were drawn, nor that the cut was fixed in time: `labels.drawn` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from quality_judge.errors import InputError
from quality_judge.stats.certificate import (
    Certificate,
    Guaranteed,
    Promises,
    Targets,
    check_request,
    floor3,
    lower_bound,
)
from quality_judge.stats.thresholds import least_trials, rows_needed


@dataclass(frozen=True, slots=True)
class Region:
    """One side of a cut: how many rows it has, and how many of those drawn were good, bad, or never labelled."""

    population: int
    good: int
    bad: int
    unlabelled: int = 0

    def __post_init__(self) -> None:
        if min(self.good, self.bad, self.unlabelled) < 0 or self.drawn > self.population:
            raise InputError(
                f"{self.drawn} rows drawn from a region of {self.population}; expected no more than it has"
            )

    @property
    def drawn(self) -> int:
        """Rows drawn, labelled or not."""
        return self.good + self.bad + self.unlabelled


def certify_fresh(
    kept: Region, dropped: Region | None, targets: Targets, *, keep_at: float, drop_below: float | None = None
) -> Promises:
    """Precision from `keep_at` on and, with `dropped`, NPV and recall below `drop_below` (or `keep_at`), all at once.

    A row that was drawn and not labelled counts against every promise. Where more than precision is asked, the
    confidence is split evenly over the two bounds; recall uses both of them. All of it is over different texts, as they
    were drawn.
    """
    split = targets.confidence if targets.asked == 1 else 1 - (1 - targets.confidence) / 2
    drop_below = keep_at if drop_below is None else drop_below
    if not 0 <= drop_below <= keep_at <= 1:
        raise InputError(f"keep_at {keep_at} and drop_below {drop_below}; expected 0 <= drop_below <= keep_at <= 1")
    if dropped is None and targets.asked > 1:
        raise InputError("NPV and recall speak of dropped rows, and none were drawn; draw some of them as well")
    keep = _share("precision", targets.precision, split, keep_at, kept.bad + kept.unlabelled, kept)
    found = lost = None
    if dropped is not None and targets.npv is not None:
        found = _share("npv", targets.npv, split, drop_below, dropped.good + dropped.unlabelled, dropped)
    if dropped is not None and targets.recall is not None:
        lost = _recall(targets.recall, targets.confidence, split, drop_below, kept, dropped)
    return Promises(keep, targets.confidence, found, lost)


def _share(
    metric: Guaranteed, target: float, confidence: float, cut: float, errors: int, region: Region
) -> Certificate:
    """The certificate of a share in one region, `errors` of whose drawn rows are wrong or unknown."""
    check_request(metric, target, confidence)
    side = f"below {cut:g}" if metric == "npv" else f"from {cut:g} on"
    said = f"{errors} of {region.drawn} rows drawn {side} are wrong" + (
        f" ({region.unlabelled} of them nobody labelled, or experts are at odds, and they count as wrong)"
        if region.unlabelled
        else ""
    )
    bound = lower_bound(errors, region.drawn, confidence) if region.drawn else 0.0
    if region.drawn and bound >= target - 1e-12:
        message = f"{metric} >= {target:g} with confidence {confidence:g}: {said} (lower bound {floor3(bound)})"
        return Certificate(
            metric, target, confidence, cut, region.drawn, region.drawn, errors, bound, None, True, 0, message, "fresh"
        )
    least = least_trials(target, confidence)
    needed = rows_needed((errors + 0.5) / (region.drawn + 1), target, confidence) if region.drawn else least
    if needed is None:
        advice = "more labels will not help; choose another cut or a lower target, and draw anew"
    else:
        needed = max(needed, least)
        advice = f"draw about {needed} rows anew; labels that were tested once may not be tested again"
    if region.unlabelled:  # to test again then costs nothing: what was granted before would be granted still
        advice = f"settle those {region.unlabelled} first; else {advice}"
    message = f"{metric} >= {target:g} is not shown with confidence {confidence:g}: {said}; {advice}"
    return Certificate(
        metric, target, confidence, None, region.drawn, 0, 0, None, None, False, needed, message, "fresh"
    )


def _recall(target: float, confidence: float, split: float, cut: float, kept: Region, dropped: Region) -> Certificate:
    """The share of good rows that are not dropped: the fewest that can be kept against the most dropped."""
    check_request("recall", target, confidence)
    n, lost = kept.drawn + dropped.drawn, dropped.good + dropped.unlabelled
    least_kept = kept.population * (lower_bound(kept.bad + kept.unlabelled, kept.drawn, split) if kept.drawn else 0.0)
    share_lost = 1 - lower_bound(lost, dropped.drawn, split) if dropped.drawn else 1.0
    most_lost = dropped.population * share_lost
    bound = least_kept / (least_kept + most_lost) if least_kept > 0 else 0.0
    seen_kept = kept.population * kept.good / max(kept.drawn, 1)
    seen_lost = dropped.population * dropped.good / max(dropped.drawn, 1)
    estimate = seen_kept / (seen_kept + seen_lost) if seen_kept + seen_lost else None
    said = (
        f"{dropped.good} of {dropped.drawn} rows drawn below {cut:g} are good (lower bound of recall {floor3(bound)})"
    )
    if bound >= target:
        message = f"recall >= {target:g} with confidence {confidence:g}: {said}"
        return Certificate(
            "recall", target, confidence, cut, n, kept.drawn, lost, bound, estimate, True, 0, message, "fresh"
        )
    hopeless = estimate is None or estimate <= target
    # A bound is off by about one over the square root of the rows; what is missing shrinks it to the gap there is.
    gap = 1.0 if estimate is None else max(estimate - target, 1e-3)
    needed = None if hopeless else math.ceil(n * max(1.0, ((estimate or 0.0) - bound) / gap) ** 2)
    advice = (
        "drop fewer rows, and draw anew" if hopeless else f"draw about {needed} rows anew, most of them below the cut"
    )
    if open_rows := kept.unlabelled + dropped.unlabelled:  # as in a share, to test again then costs nothing
        said += f", and {open_rows} rows without a label count against it"
        advice = f"settle those {open_rows} first; else {advice}"
    message = f"recall >= {target:g} is not shown with confidence {confidence:g}: {said}; {advice}"
    return Certificate("recall", target, confidence, None, n, 0, 0, None, None, False, needed, message, "fresh")
