"""A judge against labels: score them, measure, calibrate, certify, and save the judge again with what was found.

It scores through the engine only, as Spark does, and knows nothing of training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quality_judge.card import render_card
from quality_judge.cascade import Cascade
from quality_judge.engine.scorer import Scorer
from quality_judge.errors import JudgeError, LabelError
from quality_judge.judge import CARD_FILE, METRICS_FILE, Judge, fingerprint, save_judge
from quality_judge.judge_spec import MISSING_LABELS, JudgeSpec
from quality_judge.labels import FlatLabels, LabelSet, flatten, fold_indices, group_names, split_labels
from quality_judge.labels.drawn import Drawing
from quality_judge.labels.label_set import completions_of
from quality_judge.shortcuts import audit, languages
from quality_judge.stats.calibration import (
    MIN_LABELS,
    MIN_LABELS_ISOTONIC,
    MIN_STATED_LABELS,
    Calibration,
    fit_calibration,
    fit_platt,
    labels_missing,
)
from quality_judge.stats.cascade import BandChoice, choose_band, nested_bands
from quality_judge.stats.certificate import Promises, Targets
from quality_judge.stats.curves import reliability_curve, threshold_curve
from quality_judge.stats.fresh import certify_fresh
from quality_judge.stats.intervals import Clusters, summarise
from quality_judge.stats.thresholds import best_threshold, certify_all, proposed_cut

DEFAULT_THRESHOLD = 0.5
OF_PROBABILITY = ("accuracy", "f1", "cohen_kappa", "ece", "brier")
CALIBRATION_FOLDS = 5
SELECTION_SHARE = 1 / 3


@dataclass(frozen=True)
class ScoredLabels:
    """Labels with a judge's answer. raw, probability: float64 (n,) over the flat texts; NaN where there is none."""

    flat: FlatLabels
    raw: np.ndarray
    probability: np.ndarray
    category_probability: Mapping[str, np.ndarray]


def score_labels(scorer: Scorer, labels: LabelSet) -> ScoredLabels:
    """The labels scored as Spark would score them."""
    flat = flatten(labels)
    scores = scorer.score(flat.completions, flat.prompts if any(flat.prompts) else None)
    return ScoredLabels(flat, scores.raw, scores.probability, scorer.category_probabilities(scores))


def measure(scored: ScoredLabels, *, threshold: float | np.ndarray | None) -> dict[str, Any]:
    """metrics.json's numbers for these scores; see `stats.intervals.summarise`. Unscored rows count as the worst score.

    threshold: one for all, or one for each labelled text. Of a judge that gives raw scores and no probability (it
    learnt from orders alone), what needs one is None.
    """
    flat, at = scored.flat, scored.flat.labelled
    raw = np.nan_to_num(scored.raw, nan=float(np.nanmin(scored.raw)) if np.isfinite(scored.raw).any() else 0.0)
    probability = np.nan_to_num(scored.probability, nan=0.0)
    categories = {
        name: (said[~np.isnan(said)] == 1, np.nan_to_num(scored.category_probability[name], nan=0.0)[~np.isnan(said)])
        for name, said in flat.categories.items() if name in scored.category_probability
    }  # fmt: skip
    found = summarise(
        flat.label[at] == 1, raw[at], probability[at], threshold=DEFAULT_THRESHOLD if threshold is None else threshold,
        pairs=(raw[flat.pairs[:, 0]], raw[flat.pairs[:, 1]]) if len(flat.pairs) else None,
        rankings=[raw[indices] for indices in flat.rankings] or None, categories=categories or None,
        clusters=Clusters(
            flat.clusters(at), flat.clusters(flat.pairs[:, 0]),
            flat.clusters(np.array([indices[0] for indices in flat.rankings], np.int64)),
        ),
    )  # fmt: skip
    if np.isfinite(scored.raw).any() and not np.isfinite(scored.probability).any():
        found |= {key: None for name in OF_PROBABILITY for key in (name, f"{name}_ci")}
    return found


def curves(scored: ScoredLabels) -> dict[str, Any]:
    """The reliability and threshold curves of the labelled texts, for the report; empty without labels."""
    at = scored.flat.labelled
    at = at[~np.isnan(scored.probability[at])]
    if not len(at):
        return {}
    good, probability = scored.flat.label[at] == 1, scored.probability[at]
    return {"reliability": reliability_curve(good, probability), "threshold": threshold_curve(good, probability)}


def shortcuts(scored: ScoredLabels, *, threshold: float | None) -> dict[str, Any]:
    """The shortcut audit of these labels, with what the judge keeps from `threshold` on; see `shortcuts.audit`."""
    keep_at = DEFAULT_THRESHOLD if threshold is None else threshold
    return audit(scored.flat, scored.raw, scored.probability, threshold=keep_at)


def certificate(scored: ScoredLabels, targets: Targets) -> Promises | None:
    """What is promised on labels that had no part in training or calibration; None when none has a probability, and
    when all are of one class: where nothing bad was looked at, no bad row could be found kept."""
    at = scored.flat.labelled
    at = at[~np.isnan(scored.probability[at])]
    good = scored.flat.label[at] == 1
    return certify_all(scored.probability[at], good, targets) if good.any() and not good.all() else None


def recalibrated(
    judge: Judge, scorer: Scorer, labels: LabelSet, output: str | Path, targets: Targets, *, command: str | None = None
) -> tuple[Judge, dict[str, Any]]:
    """The judge at `output`, calibrated anew on `labels`, certified and measured on them too, and its metrics.

    Platt keeps the order of scores, and a certificate rests on their order alone, so that no label must be held back
    for it; metrics come from cross-fitting. Isotonic joins scores by their labels: where there are enough labels for
    it, one half calibrates and the other certifies and measures. command: as it was typed, for the card.
    """
    halves = len(flatten(labels).labelled) >= 2 * MIN_LABELS_ISOTONIC
    to_calibrate, held_out = split_labels(labels, [0.5, 0.5], seed=0) if halves else (labels, labels)
    known, good = _usable(score_labels(scorer, to_calibrate))
    calibration = (fit_calibration if halves else fit_platt)(known, good)
    best = best_threshold(calibration.apply(known), good, metric="kappa")
    tested = with_calibration(score_labels(scorer, held_out), calibration)
    promise = certificate(tested, targets)
    measured, threshold = (tested, best) if halves else _cross_fitted(tested, labels)
    metrics = _metrics_of(judge, with_attacks=False)
    metrics |= {  # the baselines answered for other rows, and nothing is left here to ask them again
        "test": measure(measured, threshold=threshold), "baselines": {}, "curves": curves(measured),
        "shortcuts": shortcuts(tested, threshold=promised_cut(promise, best)),
        "certificate": promise and promise.to_dict(),
    }  # fmt: skip
    counts = {"calibration": to_calibrate.counts(), "held_out": held_out.counts(), "held_out_sha256": held_out.sha256}
    metrics["labels"] = {**metrics.get("labels", {}), **counts}
    changes = {"calibration": calibration.to_dict(), **_promised(judge.spec, promise, best)}
    changes["thresholds"] |= {"proposed": _proposed(tested, targets)}
    changes["labels"] = {**judge.spec.labels, MISSING_LABELS: 0}
    changes |= _made_by(judge.spec, command)
    return save_with_report(judge, output, metrics, changes), metrics


def certified_fresh(
    judge: Judge, drawing: Drawing, labels: LabelSet, output: str | Path, targets: Targets, *,
    command: str | None = None,
) -> tuple[Judge, Promises]:  # fmt: skip
    """The judge at `output` with a certificate from labels of rows that were drawn at a cut fixed before.

    Its scores, calibration and fingerprint stay, so that tables it has scored stay valid. Raises JudgeError when the
    rows were drawn for another judge.
    """
    if drawing.judge != judge.fingerprint:
        raise JudgeError(f"the rows were drawn for the judge {drawing.judge}, and this is {judge.fingerprint}")
    kept, dropped = drawing.regions(labels)
    promise = certify_fresh(kept, dropped, targets, keep_at=drawing.keep_at, drop_below=drawing.drop_below)
    best = judge.spec.thresholds.get("best")
    metrics = _metrics_of(judge, with_attacks=promised_cut(promise, best) == judge.spec.threshold)
    metrics["certificate"] = promise.to_dict()
    metrics["labels"] = {**metrics.get("labels", {}), "fresh": labels.counts()}
    changes = _promised(judge.spec, promise, best) | _made_by(judge.spec, command)
    return save_with_report(judge, output, metrics, changes), promise


def make_cascade(
    cheap: Scorer, large: Scorer, labels: LabelSet, *, precision: float | None, recall: float | None, confidence: float
) -> tuple[Cascade | None, BandChoice]:
    """(the cascade, or None when nothing can be promised; how its band was chosen).

    labels: of rows that had no part in either judge. A third of them orders the bands, the rest certifies. Raises
    JudgeError when the large judge has no threshold.
    """
    cut = large.judge.spec.threshold
    if cut is None or not 0 <= cut <= 1:
        raise JudgeError("the large judge has no threshold to keep at; calibrate it with calibrate_judge.py first")
    ordering, certifying = split_labels(labels, [SELECTION_SHARE, 1 - SELECTION_SHARE], seed=0)
    to_order = [score_labels(scorer, ordering).probability for scorer in (cheap, large)]
    bands = nested_bands(to_order[0], to_order[1], cut)
    few, many = score_labels(cheap, certifying), score_labels(large, certifying)
    at = few.flat.labelled
    choice = choose_band(
        few.probability[at], many.probability[at], few.flat.label[at] == 1, bands, cut=cut, precision=precision,
        recall=recall, confidence=confidence,
    )  # fmt: skip
    if choice.band is None:
        return None, choice
    made = Cascade(
        cheap=cheap.judge.fingerprint, large=large.judge.fingerprint, low=choice.band.low, high=choice.band.high,
        cut=cut, confidence=confidence, promises=tuple(each.to_dict() for each in choice.promises),
        saving=choice.saving, saving_ci=choice.saving_ci, agreement=choice.agreement, agreement_ci=choice.agreement_ci,
        n_selection=len(to_order[0]), n_certification=choice.n, labels_sha256=labels.sha256,
    )  # fmt: skip
    return made, choice


def _usable(scored: ScoredLabels) -> tuple[np.ndarray, np.ndarray]:
    """(raw scores, labels) to calibrate on. Raises LabelError when there are too few."""
    at = scored.flat.labelled
    at = at[~np.isnan(scored.raw[at])]
    good = scored.flat.label[at] == 1
    refuse_too_few(good)
    return scored.raw[at], good


def refuse_too_few(good: np.ndarray) -> None:
    """Raises LabelError when labels, bool (n,), are too few to calibrate by, or all of one class."""
    if missing := labels_missing(int(good.sum()), int((~good).sum())):
        raise LabelError(
            f"{len(good)} labelled texts to calibrate on; at least {MIN_STATED_LABELS} of both classes are needed: "
            f"label {missing} more"
        )


def _cross_fitted(scored: ScoredLabels, labels: LabelSet) -> tuple[ScoredLabels, np.ndarray]:
    """The scores under calibrations that did not see them, and for each labelled text a threshold that did not.

    Groups are kept whole, unless a fold would then leave too few labels, or one class, to calibrate by. The fold of the
    only label of its class keeps the scores it has.
    """
    at = scored.flat.labelled
    good, usable = scored.flat.label[at] == 1, ~np.isnan(scored.raw[at])
    folds = _calibration_folds(scored.flat, labels, good, usable)
    probability, thresholds = scored.probability.copy(), np.full(len(at), DEFAULT_THRESHOLD)
    for number in range(CALIBRATION_FOLDS):
        fit, test = (folds != number) & usable, folds == number
        if _calibrates(good[fit]):
            calibration = fit_platt(scored.raw[at[fit]], good[fit])
            thresholds[test] = best_threshold(calibration.apply(scored.raw[at[fit]]), good[fit], metric="kappa")
            probability[at[test]] = calibration.apply(scored.raw[at[test]])
    return ScoredLabels(scored.flat, scored.raw, probability, scored.category_probability), thresholds


def _calibration_folds(flat: FlatLabels, labels: LabelSet, good: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """The fold of each labelled text, int64: with groups whole where every other fold can then be calibrated by."""
    of_row = zip(labels.rows(), group_names(labels), strict=True)
    of_text = [group for row, group in of_row for _ in completions_of(row)]
    groups = [of_text[at] for at in flat.labelled.tolist()]
    if len(set(groups)) >= CALIBRATION_FOLDS:
        folds = fold_indices(groups, good.tolist(), CALIBRATION_FOLDS, 0)
        if all(_calibrates(good[(folds != number) & usable]) for number in range(CALIBRATION_FOLDS)):
            return folds
    return fold_indices([str(at) for at in range(len(good))], good.tolist(), CALIBRATION_FOLDS, 0)


def _calibrates(good: np.ndarray) -> bool:
    """Whether labels, bool (n,), are enough to fit a calibration to."""
    return len(good) >= MIN_LABELS and bool(good.any()) and not good.all()


def with_calibration(scored: ScoredLabels, calibration: Calibration) -> ScoredLabels:
    """The same scores under another calibration."""
    return ScoredLabels(scored.flat, scored.raw, calibration.apply(scored.raw), scored.category_probability)


def save_certified(
    judge: Judge, output: str | Path, metrics: Mapping[str, Any], promise: Promises | None, *,
    scored: ScoredLabels | None = None, targets: Targets | None = None, command: str | None = None,
    license: str | None = None,
) -> Judge:  # fmt: skip
    """The judge saved at `output` with its metrics, its card, its certified thresholds, and how it was made.

    scored, targets: with them the judge also proposes a cut to certify on fresh labels; no label takes part in it.
    license: that of its base.
    """
    changes = _promised(judge.spec, promise, judge.spec.thresholds.get("best"))
    if scored is not None and targets is not None:
        changes["thresholds"] |= {"proposed": _proposed(scored, targets)}
        changes["language"] = languages(scored.flat)
    if license is not None:
        changes["license"] = license
    if command is not None:
        changes["training"] = {**judge.spec.training, "command": command}
    return save_with_report(judge, output, metrics, changes)


def save_with_report(judge: Judge, output: str | Path, metrics: Mapping[str, Any], changes: Mapping[str, Any]) -> Judge:
    """The judge saved at `output` with `changes` to its spec, and metrics.json and card.md to match."""
    spec = judge.spec.model_copy(update=dict(changes))
    said = spec.model_dump(mode="json") | {"fingerprint": fingerprint(spec)}
    files: dict[str, bytes | Path] = {name: judge.path(name) for name in judge.spec.files}
    files[METRICS_FILE] = (json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    files[CARD_FILE] = render_card(said, metrics, metrics.get("labels", {})).encode()
    return save_judge(output, spec, files)


def save_with_metric(judge: Judge, output: str | Path, name: str, found: Mapping[str, Any]) -> Judge:
    """The judge saved at `output`, its metrics and card with `found` under `name`; what scores is the same."""
    metrics = _metrics_of(judge, with_attacks=True)
    return save_with_report(judge, output, {**metrics, name: dict(found)}, {})


def promised_cut(promise: Promises | None, best: float | None) -> float | None:
    """From where the judge keeps: its certified cut, else its best."""
    return best if promise is None or promise.keep_at is None else promise.keep_at


def _metrics_of(judge: Judge, *, with_attacks: bool) -> dict[str, Any]:
    """What its metrics.json says. with_attacks: of attacks too, which hold for one cut and one calibration alone."""
    metrics: dict[str, Any] = json.loads(judge.path(METRICS_FILE).read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if with_attacks or name != "redteam"}


def _made_by(spec: JudgeSpec, command: str | None) -> dict[str, Any]:
    """The change that adds a command to those the judge was made by; none where they are not known."""
    first = spec.training.get("command")
    return {"training": {**spec.training, "command": f"{first}\n{command}"}} if first and command else {}


def _proposed(scored: ScoredLabels, targets: Targets) -> float | None:
    at = scored.flat.labelled
    return proposed_cut(scored.probability[at[~np.isnan(scored.probability[at])]], precision=targets.precision)


def _promised(spec: JudgeSpec, promise: Promises | None, best: float | None) -> dict[str, Any]:
    cuts = {"certified": promise and promise.keep_at, "certified_drop": promise and promise.drop_below}
    return {
        "thresholds": {**spec.thresholds, "best": best, **cuts},
        "certificate": promise.to_dict() if promise is not None else None,
    }
