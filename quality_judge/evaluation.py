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
from quality_judge.engine.scorer import Scorer
from quality_judge.errors import LabelError
from quality_judge.judge import CARD_FILE, METRICS_FILE, Judge, JudgeSpec, save_judge
from quality_judge.labels import FlatLabels, LabelSet, flatten, split_labels
from quality_judge.stats.calibration import Calibration, fit_calibration
from quality_judge.stats.metrics import reliability_curve, roc_auc, summarise, threshold_curve
from quality_judge.stats.thresholds import Certificate, best_threshold, certify

DEFAULT_THRESHOLD = 0.5
OF_PROBABILITY = ("accuracy", "f1", "cohen_kappa", "ece", "brier")
MIN_CALIBRATION_LABELS = 8
SHORTCUTS = {
    "length": lambda flat: np.array([len(text) for text in flat.completions], float),
    "ascii_share": lambda flat: np.array(
        [sum(map(str.isascii, text)) / max(len(text), 1) for text in flat.completions]
    ),
}


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


def measure(scored: ScoredLabels, *, threshold: float | None) -> dict[str, Any]:
    """metrics.json's numbers for these scores; see `stats.metrics.summarise`. Unscored rows count as the worst score.

    Of a judge that gives raw scores and no probability (it learnt from orders alone), what needs one is None.
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


def shortcuts(flat: FlatLabels) -> dict[str, float | None]:
    """The ROC AUC, either way round, of what should not decide: how far each alone predicts the labels."""
    at = flat.labelled
    good = flat.label[at] == 1
    values = {name: roc_auc(good, measured(flat)[at]) for name, measured in SHORTCUTS.items()}
    return {name: None if value is None else max(value, 1 - value) for name, value in values.items()}


def certificate(scored: ScoredLabels, *, target: float, confidence: float) -> Certificate | None:
    """The certificate on labels that had no part in training or calibration; None when none has a probability."""
    at = scored.flat.labelled
    at = at[~np.isnan(scored.probability[at])]
    if not len(at):
        return None
    return certify(scored.probability[at], scored.flat.label[at] == 1, target=target, confidence=confidence)


def recalibrated(
    judge: Judge, scorer: Scorer, labels: LabelSet, output: str | Path, *, target: float, confidence: float
) -> tuple[Judge, dict]:
    """The judge at `output` with a calibration from one half of `labels`, certified and measured on the other half."""
    to_calibrate, held_out = split_labels(labels, [0.5, 0.5], seed=0)
    scored = score_labels(scorer, to_calibrate)
    at = scored.flat.labelled
    at = at[~np.isnan(scored.raw[at])]
    if len(at) < MIN_CALIBRATION_LABELS:
        raise LabelError(
            f"{len(at)} labelled rows to calibrate on; at least {MIN_CALIBRATION_LABELS} of both classes are needed"
        )
    good = scored.flat.label[at] == 1
    calibration = fit_calibration(scored.raw[at], good)
    best = best_threshold(calibration.apply(scored.raw[at]), good, metric="kappa")
    tested = with_calibration(score_labels(scorer, held_out), calibration)
    promise = certificate(tested, target=target, confidence=confidence)
    metrics = json.loads(judge.path(METRICS_FILE).read_text(encoding="utf-8"))
    metrics |= {  # the baselines answered for other rows, and nothing is left here to ask them again
        "test": measure(tested, threshold=best), "baselines": {}, "curves": curves(tested),
        "shortcuts": shortcuts(tested.flat), "certificate": promise and promise.to_dict(),
    }  # fmt: skip
    metrics["labels"] = {
        **metrics.get("labels", {}),
        "calibration": to_calibrate.counts(),
        "held_out": held_out.counts(),
    }
    changes = {"calibration": calibration.to_dict(), **_promised(judge.spec, promise, best)}
    return save_with_report(judge, output, metrics, changes), metrics


def with_calibration(scored: ScoredLabels, calibration: Calibration) -> ScoredLabels:
    """The same scores under another calibration."""
    return ScoredLabels(scored.flat, scored.raw, calibration.apply(scored.raw), scored.category_probability)


def save_certified(judge: Judge, output: str | Path, metrics: Mapping[str, Any], promise: Certificate | None) -> Judge:
    """The judge saved at `output` with its metrics, its card and its certified threshold."""
    best = judge.spec.thresholds.get("best")
    return save_with_report(judge, output, metrics, _promised(judge.spec, promise, best))


def save_with_report(judge: Judge, output: str | Path, metrics: Mapping[str, Any], changes: Mapping[str, Any]) -> Judge:
    """The judge saved at `output` with `changes` to its spec, and metrics.json and card.md to match."""
    spec = judge.spec.model_copy(update=dict(changes))
    said = spec.model_dump(mode="json")
    files: dict[str, bytes | Path] = {name: judge.path(name) for name in judge.spec.files}
    files[METRICS_FILE] = (json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    files[CARD_FILE] = render_card(said, metrics, metrics.get("labels", {})).encode()
    return save_judge(output, spec, files)


def save_with_metric(judge: Judge, output: str | Path, name: str, found: Mapping[str, Any]) -> Judge:
    """The judge saved at `output`, its metrics and card with `found` under `name`; what scores is the same."""
    metrics = json.loads(judge.path(METRICS_FILE).read_text(encoding="utf-8"))
    return save_with_report(judge, output, {**metrics, name: dict(found)}, {})


def _promised(spec: JudgeSpec, promise: Certificate | None, best: float | None) -> dict[str, Any]:
    certified = promise.threshold if promise is not None and promise.granted else None
    return {
        "thresholds": {**spec.thresholds, "best": best, "certified": certified},
        "certificate": promise.to_dict() if promise is not None else None,
    }
