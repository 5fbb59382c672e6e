"""Whether the labels look as if drawn from the corpus: what is promised of a judge holds only for rows like its labels.

A classifier learns to tell the two apart by their surface, and answers for texts it has not seen (the two-sample test
of Lopez-Paz & Oquab 2017, arXiv 1610.06545). It knows nothing of what labels say, nor of judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from quality_judge.stats.intervals import roc_auc_interval
from quality_judge.stats.metrics import roc_auc
from quality_judge.train.surface_fit import COUNT_SCALES, SurfaceFeatures

MAX_TEXTS, MAX_CHARACTERS = 2_000, 2_000_000  # of each kind: 0.3 GB and some seconds at most
LEAST_TEXTS = 50
MAX_LENGTH = MAX_CHARACTERS // LEAST_TEXTS  # of one text, so that there is room for as many as are needed
FOLDS = 5
STRENGTH = 1.0


def likeness(labelled: Sequence[str], corpus: Sequence[str]) -> dict[str, Any] | None:
    """How well labelled texts are told from texts of the corpus, for metrics.json; None where either are too few.

    roc_auc: of a linear classifier on n-grams and plain counts, out of fold, with a bootstrap interval; about .5 where
    labels were drawn at random. length_only: of the length alone. A text that is in both is left to the labels.
    """
    ours = _some(labelled, set())
    theirs = _some(corpus, set(ours))
    if min(len(ours), len(theirs)) < LEAST_TEXTS:
        return None
    texts, which = [*ours, *theirs], np.repeat([1, 0], [len(ours), len(theirs)])
    model = RidgeClassifier(alpha=STRENGTH, class_weight="balanced", solver="sparse_cg")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    features = SurfaceFeatures(texts).matrix(max(COUNT_SCALES))
    said = cross_val_predict(model, features, which, cv=folds, method="decision_function")
    length = np.array([len(text) for text in texts], float)
    return {
        "labelled_texts": len(ours), "corpus_texts": len(theirs), "roc_auc": roc_auc(which == 1, said),
        "roc_auc_ci": roc_auc_interval(which == 1, said),
        "length_only": max(filter(None, (roc_auc(which == side, length) for side in (0, 1)))),
    }  # fmt: skip


def _some(texts: Sequence[str], others: set[str]) -> list[str]:
    """Different texts that are not among `others`, drawn by chance, as many as MAX_TEXTS and MAX_CHARACTERS allow; of
    each its first MAX_LENGTH characters."""
    found = [text for text in dict.fromkeys(text[:MAX_LENGTH] for text in texts) if text and text not in others]
    drawn = [found[at] for at in np.random.default_rng(0).permutation(len(found))[:MAX_TEXTS]]
    return [text for text, end in zip(drawn, accumulate(map(len, drawn)), strict=True) if end <= MAX_CHARACTERS]
