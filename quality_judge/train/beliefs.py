"""What models that never learnt a row believe of it: the judge out of fold, surface, base and neighbours together.

It knows nothing of where labels come from, nor what is done with a belief.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
from sklearn.decomposition import PCA

from quality_judge.labels.triggers import Association, without
from quality_judge.stats.calibration import fit_platt
from quality_judge.train.examples import Examples
from quality_judge.train.fit import Fitted
from quality_judge.train.linear import Matrix, fit_linear, out_of_fold, standardised
from quality_judge.train.stack import fit_stack
from quality_judge.train.surface_fit import SurfaceFeatures

FOLDS = 5
NEIGHBOURS = 10
NEIGHBOUR_SHARPNESS = 4
NEIGHBOUR_WEIGHT = 0.5
FROZEN_STRENGTH, SURFACE_STRENGTH, COUNT_SCALE = 0.01, 10.0, 0.3
# A word in a few rows in a hundred is a direction of its own in the states of short texts, but none of the widest:
# measured in benchmarks/NOTES.md.
PRINCIPAL_COMPONENTS = 16


class Beliefs:
    """P(good) of n labelled texts by models that did not learn them.

    at: their index among the examples, (n,). said: what they are called, bool (n,).
    """

    def __init__(self, fitted: Fitted, at: np.ndarray, said: np.ndarray) -> None:
        self.said, self.raw = said, fitted.raw[at]
        examples = fitted.examples
        self.examples = _only(examples, at)
        states = fitted.states[at]
        self.states, _, _ = standardised(states)
        self.folds = self.examples.folds(FOLDS, 0)
        self.frozen = self._linear(self.states, FROZEN_STRENGTH)

    def all_parts(self) -> np.ndarray:
        """By surface, frozen states, the judge's own out-of-fold score and the labels of near neighbours, (n,)."""
        surface = self._linear(SurfaceFeatures(self.examples.texts).matrix(COUNT_SCALE), SURFACE_STRENGTH)
        _, stacked = fit_stack(self.examples, self.frozen, surface)
        total = _standard(stacked) + NEIGHBOUR_WEIGHT * _standard(self._neighbours())
        if np.isfinite(self.raw).all():
            total = total + _standard(self.raw)
        return fit_platt(total, self.said).apply(total)

    @cached_property
    def semantic(self) -> np.ndarray:
        """By the first principal components of the frozen states, where a single rare word hardly shows, (n,)."""
        components = PCA(min(PRINCIPAL_COMPONENTS, *self.states.shape), whiten=True, svd_solver="covariance_eigh")
        raw = self._linear(components.fit_transform(self.states), FROZEN_STRENGTH)
        return fit_platt(raw, self.said).apply(raw)

    def without(self, found: Association) -> np.ndarray:
        """P(good) of the rows that hold an n-gram, without it, by rows that do not hold it, float64 (k,).

        Where these are all of one class there is nothing to learn from them: then `semantic`.
        """
        others = np.ones(len(self.said), bool)
        others[found.rows] = False
        if len(np.unique(self.said[others])) < 2:
            return self.semantic[found.rows]
        texts = list(self.examples.texts)
        for row in found.rows:
            texts[row] = without(texts[row], found.ngram)
        surface = SurfaceFeatures(texts).matrix(COUNT_SCALE)
        folds = np.where(others, self.folds, FOLDS)
        parts = [self._linear(self.states, FROZEN_STRENGTH, folds), self._linear(surface, SURFACE_STRENGTH, folds)]
        learnt = replace(self.examples, label=np.where(others, self.examples.label, np.nan))
        _, stacked = fit_stack(learnt, *parts)
        return fit_platt(stacked[others], self.said[others]).apply(stacked[found.rows])

    def _linear(self, features: Matrix, strength: float, folds: np.ndarray | None = None) -> np.ndarray:
        def fit(among: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            inside = among if folds is None else among & (folds < FOLDS)
            model = fit_linear(features, self.examples, inside, strength=strength)
            return lambda rows: model.raw(features[rows])

        return out_of_fold(self.examples, self.folds if folds is None else folds, fit)

    def _neighbours(self) -> np.ndarray:
        """The labels of the nearest rows of other groups, weighed by likeness, float64 (n,) in [0, 1]."""
        unit = self.states / (np.linalg.norm(self.states, axis=1, keepdims=True) + 1e-9)
        group = np.unique(np.array(self.examples.groups), return_inverse=True)[1]
        label = self.examples.label
        found = np.empty(len(label))
        for start in range(0, len(label), 1000):
            part = slice(start, start + 1000)
            likeness = unit[part] @ unit.T
            likeness[group[part, None] == group[None, :]] = -1
            nearest = np.argpartition(-likeness, min(NEIGHBOURS, len(label) - 1), axis=1)[:, :NEIGHBOURS]
            weight = np.maximum(np.take_along_axis(likeness, nearest, axis=1), 1e-3) ** NEIGHBOUR_SHARPNESS
            found[part] = (weight * label[nearest]).sum(axis=1) / weight.sum(axis=1)
        return found


def _only(examples: Examples, at: np.ndarray) -> Examples:
    """The texts `at`, each a unit of its own."""
    n, groups = len(at), tuple(examples.groups[unit] for unit in examples.unit[at])
    return replace(
        examples, texts=[examples.texts[index] for index in at], tokens=examples.tokens.take(at),
        label=examples.label[at], weight=examples.weight[at], categories=examples.categories[at], unit=np.arange(n),
        rank=np.zeros(n, np.int64), groups=groups,
    )  # fmt: skip


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-9)
