"""The part of a judge that reads a text's surface: n-grams and plain counts, weighed by what labels say of them.

Few labels hold few n-grams. Texts that nobody labelled tell which go together (latent semantic analysis, Deerwester
et al. 1990): the more those texts vary in a direction, the more freely weights move along it, so that a label speaks
for words it does not hold. The judge is of the same size and as fast with them. It knows nothing of bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, product
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from quality_judge.engine.stacking import SurfaceModel, clipped, weighted
from quality_judge.engine.surface import FEATURE_BITS, LONG, SHORT, NgramOrder, surface_counts, surface_features
from quality_judge.errors import InputError
from quality_judge.train.examples import Examples
from quality_judge.train.linear import Linear, best_linear, fit_linear, order_score

COUNT_SCALES = (0.0, 0.3)
NGRAM_ORDERS = (LONG, SHORT)
SURFACE_STRENGTHS = (1.0, 10.0)
MAX_UNLABELLED_CHARACTERS = 5_000_000  # their n-grams take half a gigabyte
MAX_DIRECTIONS = 64
TEXTS_PER_DIRECTION = 10
FREEDOM = 3.0  # 2 to 4 do as well, see benchmarks/NOTES.md


class SurfaceFeatures:
    """The design matrix of a set of texts for `fit_linear`, and the way back to a `SurfaceModel`.

    unlabelled: other texts, of which only n-grams are read.
    """

    def __init__(self, texts: Sequence[str], ngram_order: NgramOrder = LONG, *, unlabelled: Sequence[str] = ()) -> None:
        ngrams, others = surface_features(texts, ngram_order), surface_features(unlabelled, ngram_order)
        self._counts, self._ngram_order = surface_counts(texts), np.array(ngram_order, np.int64)
        seen_in = np.bincount(np.concatenate([ngrams.indices, others.indices]), minlength=1 << FEATURE_BITS)
        self._idf = (np.log((1 + len(texts) + len(unlabelled)) / (1 + seen_in)) + 1).astype(np.float32)
        self._mean, self._scale = self._counts.mean(axis=0), self._counts.std(axis=0) + 1e-6
        self._ngrams = weighted(ngrams, self._idf)
        self._freer = FREEDOM * varied_directions(weighted(others, self._idf))

    def matrix(self, count_scale: float) -> sparse.csr_matrix:
        """N-grams, their shares in the freer directions, and counts times `count_scale`, their say; CSR (n, F)."""
        counts = count_scale * clipped(self._counts, self._mean, self._scale)
        along = sparse.csr_matrix(self._ngrams @ self._freer)
        return sparse.hstack([self._ngrams, along, sparse.csr_matrix(counts)]).tocsr()

    def model(self, linear: Linear, count_scale: float) -> SurfaceModel:
        """The surface model whose raw scores equal those of `linear` on `matrix(count_scale)`."""
        ngrams, along, counts = np.split(linear.weight, np.cumsum(self._freer.shape))
        return SurfaceModel(
            self._idf, (ngrams + self._freer @ along).astype(np.float32), self._mean, self._scale,
            counts * count_scale, np.array([linear.bias]), self._ngram_order,
        )  # fmt: skip


def varied_directions(features: sparse.csr_matrix) -> np.ndarray:
    """The directions in which the rows vary most, float32 (F, k), orthogonal; k is 0 for fewer than ten rows.

    features: CSR (n, F), rows of length 1. Each direction is as long as its singular value, and their mean square is 1.
    As features of their own, shrunk like the rest, they give weights the prior covariance I + FREEDOM²·V·S²·Vᵀ: that
    of weights which vary as the rows do.
    """
    count = min(MAX_DIRECTIONS, features.shape[0] // TEXTS_PER_DIRECTION)
    if not count:
        return np.zeros((features.shape[1], 0), np.float32)
    _, sizes, directions = randomized_svd(features, count, n_iter=3, random_state=0)
    return np.ascontiguousarray(directions.T * (sizes / np.sqrt((sizes**2).mean())), np.float32)


def distinct_texts(texts: Sequence[str]) -> list[str]:
    """Those that say something, each once, for repeats are no evidence; of many some, MAX_UNLABELLED_CHARACTERS long.

    Which ones, chance decides and not their order: a corpus comes source by source.
    """
    found = [text for text in dict.fromkeys(texts) if text]
    order = np.random.default_rng(0).permutation(len(found)).tolist()
    ends = accumulate(len(found[at]) for at in order)
    taken = sorted(at for at, end in zip(order, ends, strict=True) if end <= MAX_UNLABELLED_CHARACTERS)
    return [found[at] for at in taken]


def fit_surface(
    examples: Examples, folds: np.ndarray, *, unlabelled: Sequence[str] = ()
) -> tuple[SurfaceModel, np.ndarray, dict[str, Any]]:
    """The surface of the best order out of fold, its out-of-fold raw scores, float64 (n,), and what was chosen.

    unlabelled: of `distinct_texts`. Raises InputError where they are too few to say anything.
    """
    if 0 < len(unlabelled) < TEXTS_PER_DIRECTION:
        raise InputError(
            f"the unlabelled rows hold {len(unlabelled)} different texts; expected {TEXTS_PER_DIRECTION} or more"
        )
    kinds = {order: SurfaceFeatures(examples.texts, order, unlabelled=unlabelled) for order in NGRAM_ORDERS}
    results = []
    for (ngram_order, features), count_scale in product(kinds.items(), COUNT_SCALES):
        strength, raw = best_linear(features.matrix(count_scale), examples, folds, SURFACE_STRENGTHS)
        results.append((order_score(examples, raw, folds >= 0), ngram_order, count_scale, strength, raw))
    _, ngram_order, count_scale, strength, raw = max(results, key=lambda result: result[0])
    features, everything = kinds[ngram_order], np.ones(len(examples), bool)
    linear = fit_linear(features.matrix(count_scale), examples, everything, strength=strength)
    note: dict[str, Any] = {"ngram_order": ngram_order._asdict(), "count_scale": count_scale, "strength": strength}
    if unlabelled:
        note["unlabelled_texts"] = len(unlabelled)
    return features.model(linear, count_scale), raw, note
