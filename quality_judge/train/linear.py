"""Linear judges, fitted in seconds: on the surface of a text, on a frozen base's states, on its length alone.

They are the parts a judge is stacked from and the baselines it must beat. Labels and orders are learnt together:
a pair counts as the difference of its two feature rows. It knows nothing of fine-tuning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from scipy import sparse
from scipy.linalg import solve_triangular
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from quality_judge.stats.metrics import pair_accuracy, roc_auc
from quality_judge.train.examples import Examples

FROZEN_STRENGTHS = (0.001, 0.01, 0.1)
MIN_SPREAD = 0.1  # of the median one
MAX_SPANNED_TEXTS = 1500
SPAN_TOLERANCE = 1e-10
TIE_STRENGTH = 10.0  # 1 to 100 do as well, see benchmarks/NOTES.md
Matrix: TypeAlias = np.ndarray | sparse.csr_matrix


@dataclass(frozen=True)
class Linear:
    """raw = features · weight + bias. weight: float64 (F,)."""

    weight: np.ndarray
    bias: float

    def raw(self, features: Matrix) -> np.ndarray:
        """Raw scores, float64 (n,), of features (n, F)."""
        return np.asarray(features @ self.weight).ravel() + self.bias


def fit_linear(features: Matrix, examples: Examples, among: np.ndarray, *, strength: float) -> Linear:
    """The class-balanced L2 logistic model of the texts where `among`, bool (n,). strength: sklearn's C.

    Of one class and no order nothing can be learnt: then it is a constant, the log-odds of the smoothed counts. Tied
    texts are held together by dense features alone: by n-grams it changed little (benchmarks/NOTES.md).
    """
    rows, good, weight = examples.verdicts(among)
    pairs = examples.pairs(among)
    if not len(pairs) and len(np.unique(good)) < 2:
        return Linear(np.zeros(features.shape[1]), float(np.log((good.sum() + 1) / ((~good).sum() + 1))))
    ties = np.empty((0, 2), np.int64) if sparse.issparse(features) else examples.ties(among)
    asked = [rows, *pairs.T, *ties.T]
    texts, at = np.unique(examples.same[np.concatenate(asked)], return_inverse=True)
    seen, back = _spanned(features[texts])
    _, better, worse, one, other = np.split(at, np.cumsum([len(part) for part in asked])[:-1])
    hold = _holding(seen[one] - seen[other]) if len(ties) else None
    seen = seen if hold is None else solve_triangular(hold, seen.T, lower=True).T
    difference = seen[better] - seen[worse]
    share = 0.5 / np.bincount(examples.unit[pairs[:, 0]])[examples.unit[pairs[:, 0]]] if len(pairs) else np.zeros(0)
    parts = [seen[at[: len(rows)]], difference, -difference]
    design = sparse.vstack(parts).tocsr() if sparse.issparse(seen) else np.concatenate(parts)
    target = np.concatenate([good, np.ones(len(pairs), bool), np.zeros(len(pairs), bool)])
    weights = np.concatenate([weight, share, share])
    found = _logistic(design, target, weights, strength, intercept=len(rows) > 0)
    weight = found.weight if hold is None else solve_triangular(hold.T, found.weight)
    return Linear(weight if back is None else np.asarray(features[texts].T @ (back @ weight)).ravel(), found.bias)


def _holding(difference: np.ndarray) -> np.ndarray:
    """L, lower triangular (k, k), with LLᵀ = I + TIE_STRENGTH·DᵀD of the differences D (t, k) of tied texts.

    |Lᵀw|² = |w|² + TIE_STRENGTH·Σ(w·d)², so that the same penalty over Lᵀw holds ties together, as within-class
    covariance normalisation does for what is one speaker (Hatch, Kajarekar & Stolcke 2006).
    """
    return np.linalg.cholesky(np.eye(difference.shape[1]) + TIE_STRENGTH * difference.T @ difference)


def _logistic(design: Matrix, target: np.ndarray, weight: np.ndarray, strength: float, *, intercept: bool) -> Linear:
    """The class-balanced L2 logistic fit of (n, F) features."""
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300, fit_intercept=intercept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(design, target, sample_weight=weight)
    return Linear(model.coef_[0].astype(np.float64), float(np.ravel(model.intercept_)[0]) if intercept else 0.0)


def _spanned(features: Matrix) -> tuple[Matrix, np.ndarray | None]:
    """The rows in a basis of their own span, (n, k), and B, (n, k), such that weights = featuresᵀ B coefficients.

    The best weights lie in the span of the texts, however many pairs are made of them, so that with few texts they are
    found over n numbers instead of F. With many, or of few features, the rows themselves and None.
    """
    if features.shape[0] > MAX_SPANNED_TEXTS or features.shape[0] >= features.shape[1]:
        return features, None
    product = features @ features.T
    gram = product.toarray() if sparse.issparse(product) else np.asarray(product)
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    kept = values > max(values[-1] * SPAN_TOLERANCE, np.finfo(float).tiny)
    kept[-1] = True
    roots = np.sqrt(np.maximum(values[kept], 0.0))
    return vectors[:, kept] * roots, vectors[:, kept] / np.maximum(roots, np.finfo(float).tiny)


def standardised(states: np.ndarray, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(states − mean) / spread, float64 (n, W); mean and spread, float64 (W,), of the rows `among`, bool (n,), or all.

    A base has dimensions that hardly vary. Their spread counts as MIN_SPREAD of the median one, else a head leans on
    them a thousandfold, and loses what it knew as soon as fine-tuning moves them.
    """
    seen = states if among is None else states[among]
    mean, spread = seen.mean(axis=0), seen.std(axis=0)
    spread = np.maximum(spread, MIN_SPREAD * np.median(spread) + np.finfo(float).tiny)
    return (states - mean) / spread, mean, spread


def order_score(examples: Examples, raw: np.ndarray, among: np.ndarray) -> float:
    """How well `raw` orders the texts where `among`, in [0, 1]: ROC AUC over labels and accuracy over pairs.

    Their mean, each weighed by the units it rests on, so that a handful of pairs does not outvote hundreds of labels;
    .5 where nothing is known. A soft label counts as the verdict it leans to, and not at all where it is open.
    """
    rows, pairs = among & examples.decided, examples.pairs(among)
    parts = [
        (roc_auc(examples.label[rows] >= 0.5, raw[rows]) if rows.any() else None, int(rows.sum())),
        (
            pair_accuracy(raw[pairs[:, 0]], raw[pairs[:, 1]]) if len(pairs) else None,
            len(np.unique(examples.unit[pairs[:, 0]])),
        ),
    ]
    said = [(score, units) for score, units in parts if score is not None]
    return float(np.average([score for score, _ in said], weights=[units for _, units in said])) if said else 0.5


def out_of_fold(
    examples: Examples, folds: np.ndarray, fit: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
) -> np.ndarray:
    """Raw scores, float64 (n,), each by a model that saw no text of its fold; NaN in folds below 0.

    fit: takes which texts to learn from, bool (n,), and gives a function from text indices to raw scores.
    """
    raw = np.full(len(examples), np.nan)
    for fold in range(folds.max() + 1):
        held_out = np.flatnonzero(folds == fold)
        raw[held_out] = fit(folds != fold)(held_out)
    return raw


def best_linear(
    features: Matrix, examples: Examples, folds: np.ndarray, strengths: Sequence[float]
) -> tuple[float, np.ndarray]:
    """The strength with the best out-of-fold order, and its out-of-fold raw scores, float64 (n,)."""
    results = []
    for strength in strengths:
        raw = out_of_fold(examples, folds, partial(_fitted_scores, features, examples, strength))
        results.append((order_score(examples, raw, folds >= 0), strength, raw))
    _, strength, raw = max(results, key=lambda result: result[0])
    return strength, raw


def _fitted_scores(
    features: Matrix, examples: Examples, strength: float, among: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    model = fit_linear(features, examples, among, strength=strength)
    return lambda rows: model.raw(features[rows])
